"""The machine that an experiment ran on: what times and speeds belong to."""

import os
import platform
import sys
from pathlib import Path

import jax


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model of the processor, or as much of it as the platform tells."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    models = [
        line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
    ]
    return models[0] if models else platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may run on."""
    mine = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(mine(0))


def record() -> dict[str, str | int]:
    """Return the processor, its cores and the devices of JAX, and PyTorch where it was
    used.
    """
    device = jax.devices()[0]
    found = {
        "processor": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
    }
    torch = sys.modules.get("torch")
    return found if torch is None else found | {"torch": torch.__version__}


def sentence() -> str:
    """Return the record in a line, for tables and figures."""
    known = record()
    used = f", PyTorch {known['torch']}" if "torch" in known else ""
    return (
        f"{known['processor']}, {known['cores']} cores; JAX {jax.__version__} on "
        f"{known['devices']}{used}"
    )
