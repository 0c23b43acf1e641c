"""When one of several processes ends, the others end too, and say how to go on."""

import contextlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import _cluster, _quiet

PROGRAM = """
import sys
import jax
from jax.experimental import multihost_utils
from experiments import _cluster
jax.config.update("jax_num_cpu_devices", 1)
assert _cluster.join(sys.argv[1])
with _cluster.together():
    multihost_utils.sync_global_devices("begin")
    print("together", flush=True)
    while True:
        multihost_utils.sync_global_devices("step")
        if sys.argv[2] == f"fail {jax.process_index()}":
            raise AssertionError("a mistake")
        if sys.argv[2] == f"leave {jax.process_index()}":
            sys.exit(2)
"""


@contextlib.contextmanager
def cluster(*arguments, **options):
    """Start two processes of a cluster, "ADDRESS" in the arguments filled in."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        **options,
    }
    processes = []
    for index in range(2):
        filled = [each.replace("ADDRESS", f"{address},2,{index}") for each in arguments]
        processes.append(subprocess.Popen([sys.executable, *filled], **pipes))
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(process, limit=60):
    """Return what a process wrote to standard error, and how many seconds it took."""
    begun = time.monotonic()
    _, errors = process.communicate(timeout=limit)
    return errors, time.monotonic() - begun


def assert_one_line(errors):
    lines = [line for line in errors.splitlines() if line.strip()]
    assert len(lines) == 1, errors
    assert lines[0].startswith(_quiet.LOST) and lines[0].endswith(_quiet.GOES_ON)


@pytest.mark.parametrize("victim", [0, 1])
def test_exact_killed_the_other_ends_with_one_line(victim):
    with cluster("-c", PROGRAM, "ADDRESS", "") as processes:
        for process in processes:
            assert "together\n" in iter(process.stdout.readline, "")
        processes[victim].send_signal(signal.SIGKILL)
        errors, seconds = ended(processes[1 - victim])
        assert seconds < 10 and processes[1 - victim].returncode not in (0, None)
        assert_one_line(errors)


@pytest.mark.parametrize("how", ["fail", "leave"])
def test_exact_a_mistake_in_one_process_ends_both(how):
    """With its traceback there, and with the line in the other process."""
    with cluster("-c", PROGRAM, "ADDRESS", f"{how} 1") as processes:
        other, own = (ended(process)[0] for process in processes)
        assert_one_line(other)
        assert ("AssertionError: a mistake" in own) == (how == "fail")
        assert processes[1].returncode == (1 if how == "fail" else 2)
        assert processes[0].returncode not in (0, None)


def test_exact_alone_nothing_is_caught():
    for error in (SystemExit(2), KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)), _cluster.together():
            raise error


def test_exact_other_messages_are_passed_on():
    def passed(text):
        program = [sys.executable, _quiet.__file__]
        return subprocess.run(
            program, input=text, capture_output=True, text=True
        ).stderr

    assert passed("a warning\nW1124 15:00 coordination_service\nend") == (
        "a warning\nW1124 15:00 coordination_service\nend"
    )
    trace = "E1124 14:26 3 coordination_service_agent.cc:289] Polled\n"
    trace += "F1124 x\n  @ 0x7f Flush()\n"
    assert passed("before\n" + trace) == f"before\n\n{_quiet.LOST}. {_quiet.GOES_ON}\n"


def test_exact_distributed_refuses_nonsense(capsys):
    for bad in (
        "",
        "localhost",
        "localhost:1,2",
        "localhost:1,two,0",
        "localhost:1,2,3,4",
    ):
        assert not _cluster.join(bad)
        assert f"--distributed {bad}: must be auto" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_invariance_an_experiment_goes_on_after_a_death(victim, tmp_path):
    """A process is killed in the middle: the same command then gives the same bits."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    command = [
        "-m",
        "experiments",
        "lognormal_law",
        "--quick",
        "--distributed",
        "ADDRESS",
        "--out",
    ]
    with cluster(*command, str(folder), stdout=subprocess.DEVNULL) as processes:
        while not list(folder.glob("*.blocks/*/blocks-*.npz")):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        processes[victim].send_signal(signal.SIGKILL)
        errors, seconds = ended(processes[1 - victim])
        assert (
            seconds < 10
            and errors.count(_quiet.GOES_ON) == 1
            and "Check fail" not in errors
        )
    for out in (folder, whole):
        with cluster(*command, str(out), stdout=subprocess.DEVNULL) as processes:
            for process in processes:
                ended(process, 600)
    one, other = (np.load(out / "lognormal_law.npz") for out in (folder, whole))
    assert all(np.array_equal(one[name], other[name]) for name in other)
