"""The package is its modules: a plain import gives them all, and shows them as a table."""

import subprocess
import sys
from pathlib import Path

import lognorm_jax

ROOT = Path(__file__).parent.parent
# modules that no user needs; every other one is in the table of contents
MACHINERY = {"bits", "checks", "distances", "edgeworths", "files", "fingerprints", "frameworks"}
MACHINERY |= {"grams", "increments", "initialisations", "inversion", "jacobians", "layers"}
MACHINERY |= {"memory", "norms", "programs", "quadrature", "recording", "records", "scans"}
MACHINERY |= {"shapes", "specs", "tables", "transports", "vanilla"}


def test_exact_table_of_contents_has_every_module_but_machinery():
    modules = {path.stem for path in (ROOT / "lognorm_jax").glob("*.py")} - {"__init__"}
    assert modules >= MACHINERY
    assert set(lognorm_jax.__all__) == modules - MACHINERY
    for name in lognorm_jax.__all__:
        assert f"``{name}``" in lognorm_jax.__doc__


def test_exact_plain_import_gives_all_modules_and_starts_no_device():
    program = """
import lognorm_jax
for name in lognorm_jax.__all__:
    getattr(lognorm_jax, name)
print(*dir(lognorm_jax))
import jax
jax.config.update("jax_num_cpu_devices", 3)  # refused once a device has been used
print(len(jax.devices("cpu")))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    contents, devices = done.stdout.splitlines()
    assert contents.split() == sorted([*lognorm_jax.__all__, "__version__"])
    assert devices == "3"
