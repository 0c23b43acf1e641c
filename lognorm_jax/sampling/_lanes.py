"""Calls that run beside each other on one CPU device, so that it has all cores.

JAX runs what one thread asks of a device one after the other; what several threads ask
runs at the same time. Which thread asked changes no bit of a result.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax

from lognorm_jax.sampling import _lapack, _programs


@contextlib.contextmanager
def opened(
    call: Callable, devices: tuple[jax.Device, ...], jaxpr: Any
) -> Iterator[Sequence[Callable]]:
    """Yield the call as it is asked of devices by as many threads as help them.

    jaxpr: of what it calls.
    """
    count = 1 if _lapack.called(jaxpr, devices) else _count(devices)
    if count == 1:
        yield [call]
        return
    with contextlib.ExitStack() as threads:
        yield [
            functools.partial(_asked, threads.enter_context(_thread()), call)
            for _ in range(count)
        ]


def _thread() -> futures.Executor:
    return futures.ThreadPoolExecutor(1, thread_name_prefix="lognorm_jax")


def _asked(thread: futures.Executor, call: Callable, *args: Any) -> Any:
    """Return what a call returns, which may still be under way."""
    return thread.submit(call, *args).result()


def _count(devices: tuple[jax.Device, ...]) -> int:
    """Return how many threads keep the cores of a process busy."""
    on_cpu = all(device.platform == "cpu" for device in devices)
    if not on_cpu or _programs.several(devices):
        return 1
    return max(1, _cores() // len(devices))


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
