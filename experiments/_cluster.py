"""Several processes as one: join them, and end in seconds, with one line, when one of
them dies.

JAX's own way to end takes minutes, as each process waits for all others before it goes,
or aborts, with a stack trace of C++, where it stands.
"""

import contextlib
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax

from experiments import _quiet

HEARTBEAT = 20  # seconds without a sign of life after which a process counts as dead
_SIGNS = "gloo|nccl|coordination service|heartbeat|barrier"
_SIGNS += "|connection (closed|reset)|socket closed"


def join(processes: str) -> bool:
    """Join the processes of "auto" or "HOST:PORT,COUNT,INDEX"; say so, and return
    False, if not.
    """
    # it would make SIGTERM do nothing
    jax.config.update("jax_enable_preemption_service", False)
    try:
        which = ()
        if processes != "auto":
            address, count, index = processes.split(",")
            which = address, int(count), int(index)
        _quieten()
        jax.distributed.initialize(*which, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, IndexError, RuntimeError) as error:
        usage = "auto (on a cluster that JAX knows), or HOST:PORT,COUNT,INDEX"
        print(f"--distributed {processes}: must be {usage}. {error}", file=sys.stderr)
        return False
    return True


@contextlib.contextmanager
def together() -> Iterator[None]:
    """End at once if what is inside fails, where there are other processes: they end as
    well.

    Else all would wait for each other. Exit codes 0 and 1 are those of an experiment
    that is done.
    """
    try:
        yield
    except BaseException as error:
        exiting = isinstance(error, SystemExit)
        done = exiting and error.code in (None, 0, 1)
        if done or not jax.distributed.is_initialized():
            raise
        if lost(error):
            reason = str(error).splitlines()[0]
            os.write(2, f"{_quiet.LOST} ({reason}). {_quiet.GOES_ON}\n".encode())
        elif not exiting:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.code if exiting and isinstance(error.code, int) else 1)


def lost(error: BaseException) -> bool:
    """Return whether an error is that another process of the cluster has ended."""
    # JAX raises either
    known = isinstance(error, jax.errors.JaxRuntimeError | ValueError)
    said = known and re.search(_SIGNS, str(error), re.IGNORECASE)
    return bool(said) and jax.distributed.is_initialized()


def _quieten() -> None:
    """Send what C++ writes to standard error through ``_quiet``; Python writes there as
    before.
    """
    sys.stderr.flush()
    own = os.dup(2)
    command = [sys.executable, "-E", "-S", str(Path(_quiet.__file__))]
    # a session of its own: to be interrupted by the keyboard is not for it
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    os.dup2(process.stdin.fileno(), 2)
    sys.stderr = open(own, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
