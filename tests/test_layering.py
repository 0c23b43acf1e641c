"""Imports run downward only: each module may import the modules of lower levels, no others."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = [
    {"checks", "distances", "files", "fingerprints", "memory", "programs", "records"},
    {"bits", "datasets", "edgeworths", "frameworks", "losses", "norms", "specs", "summaries"}
    | {"tables", "vanilla"},
    {"blocks", "laws", "masks", "recording", "residuals", "runs", "scans", "transports"}
    | {"weights"},
    {"activations", "ensembles", "increments", "reports", "sampling", "shapes"},
    {"initialisations", "layers", "quadrature"},
    {"convolutions", "grams", "inversion", "optimizers", "probes"},
    {"exact", "moments"},
    {"paths"},
    {"jacobians", "martingales"},
    {"networks"},
    {"training"},
    {"__init__"},
]
CORE = {"jax", "jaxlib", "numpy", "scipy", "optax", "lognorm_jax"}
STANDARD = {
    "collections",
    "contextlib",
    "itertools",
    "dataclasses",
    "fractions",
    "functools",
    "math",
    "numbers",
    "operator",
}
STANDARD |= {
    "hashlib",
    "io",
    "json",
    "os",
    "pathlib",
    "re",
    "types",
    "typing",
    "uuid",
    "warnings",
}


def imported(source: str) -> set[str]:
    """Return the dotted names that a module imports: ``from a import b`` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level_of(module: str) -> int:
    return next(i for i, level in enumerate(LEVELS) if module in level)


def violations(module: str, source: str) -> list[str]:
    """Return what is wrong with the imports of one module of the library."""
    wrong = []
    for name in imported(source):
        package, _, rest = name.partition(".")
        if package not in CORE | STANDARD:
            wrong.append(f"{module} imports {name}: not a core dependency")
        if name.startswith(("jax._src", "jax.core", "jax.interpreters")):
            wrong.append(f"{module} imports {name}: not public")
        if package == "lognorm_jax" and level_of(rest) >= level_of(module):
            wrong.append(f"{module} imports {rest}: not below it")
    return wrong


MODULES = sorted((ROOT / "lognorm_jax").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_exact_imports_run_downward(path):
    source = path.read_text()
    assert violations(path.stem, source) == []
    assert len(source.splitlines()) <= 300
    assert "jax._src" not in source and "jax.core" not in source


def test_exact_every_module_has_a_level():
    assert {path.stem for path in MODULES} == set().union(*LEVELS)


def test_exact_layering_catches_what_it_should():
    assert violations("laws", "from lognorm_jax import ensembles")
    assert violations("masks", "from lognorm_jax import weights")
    assert violations("paths", "import matplotlib.pyplot")
    assert violations("paths", "from jax._src import core")
    assert violations("paths", "import lognorm_jax.networks")
    assert violations("__init__", "import matplotlib")
    assert not violations("paths", "import jax\nfrom lognorm_jax import checks, ensembles")


def test_exact_only_one_module_draws_and_nothing_imports_experiments():
    for path in [*MODULES, *(ROOT / "experiments").glob("*.py")]:
        names = {name.split(".")[0] for name in imported(path.read_text())}
        assert "matplotlib" not in names or path.name == "_figure.py"
        assert "experiments" not in names or path.parent.name == "experiments"
