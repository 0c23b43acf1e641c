"""The package is its modules: a plain import gives them all, and shows them as a
table.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lognorm_jax
from lognorm_jax import networks, paths

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lognorm_jax"
# what had another place, or name, before the library had folders
FORMER = """
bits blocks checks convolutions datasets exact fingerprints grams increments layers
losses martingales memory moments norms optimizers probes programs quadrature records
reports residuals runs scans shapes summaries tables transports vanilla
"""


def test_exact_table_of_contents_has_every_public_module():
    wings = [
        path for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"
    ]
    modules = {
        path.stem for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("[a-z]*/*.py")]
    }
    # whose modules are listed
    modules |= {wing.name for wing in wings} - {"theory", "probing", "auditing", "tool"}
    assert set(lognorm_jax.__all__) == {name for name in modules if name[0] != "_"}
    for name in lognorm_jax.__all__:
        assert f"``{name}``" in lognorm_jax.__doc__


def test_exact_the_folder_can_be_taken_in_at_a_glance():
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 17


@pytest.mark.parametrize("name", FORMER.split())
def test_exact_modules_keep_their_former_names(name):
    """In both forms of import that scripts have: of a name, and of a dotted path."""
    module = importlib.import_module(f"lognorm_jax.{name}")
    scope = {}
    exec(f"from lognorm_jax import {name}", scope)
    assert scope[name] is module


def test_exact_networks_have_the_path_of_their_jacobian():
    assert networks.jacobian_path is paths.jacobian


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
