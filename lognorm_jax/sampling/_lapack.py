"""Which paths may not run beside themselves on CPUs: those that call LAPACK.

XLA deals a call of LAPACK to the threads of a process, and the thread that runs the
program waits for them. Two programs at once, on one device or on two, may each hold the
threads that the other waits for, and wait forever.
"""

from typing import Any

import jax

from lognorm_jax.sampling import _footprints

# operations of JAX that are calls of LAPACK, or of what is not XLA's own
_CALLS = {
    "cholesky",
    "cholesky_update",
    "eig",
    "eigh",
    "ffi_call",
    "geqp3",
    "geqrf",
    "hessenberg",
    "householder_product",
    "lu",
    "ormqr",
    "qr",
    "schur",
    "svd",
    "symmetric_product",
    "triangular_solve",
    "tridiagonal",
    "tridiagonal_solve",
}


def called(jaxpr: Any, devices: tuple[jax.Device, ...]) -> bool:
    """Return whether a jaxpr calls LAPACK on these devices.

    >>> import jax.numpy as jnp
    >>> norm = jax.make_jaxpr(lambda x: jnp.linalg.norm(x, 2))(jnp.eye(2))
    >>> called(norm, tuple(jax.devices("cpu")))
    True
    """
    on_cpu = any(device.platform == "cpu" for device in devices)
    return on_cpu and not _CALLS.isdisjoint(_footprints.operations(jaxpr))


def one_each(devices: tuple[jax.Device, ...]) -> tuple[jax.Device, ...]:
    """Return the first device of each process."""
    first: dict[int, jax.Device] = {}
    for device in devices:
        first.setdefault(device.process_index, device)
    return tuple(first.values())
