"""Imports run downward only: each wing may import the wings below it, and there are no
circles.
"""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
# from the bottom up; what stands in one line does not import one another
WINGS = [
    {"_tools"},
    {"weights", "masks", "laws"},
    {"activations", "ensembles"},
    {"theory"},
    {"networks"},
    {"paths"},
    {"sampling"},
    {"probing"},
    {"training"},
    {"auditing"},
    {"tool"},
    {"__init__"},
    {"__main__"},
]
CORE = {"jax", "jaxlib", "numpy", "scipy", "optax", "lognorm_jax"}
ENTRIES = {"__init__", "__main__"}
# of extras, where they are asked for
EXTRAS = {"tool": {"matplotlib", "tyro"}, "__main__": {"tyro"}}


def test_exact_layout_lists_the_folder_in_the_order_of_imports():
    """Each wing once, under CONTRIBUTING's Layout, and none that is not there."""
    layout = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Layout")[1]
    )
    inside = layout.split("lognorm_jax/\n")[1].split("\nexperiments/")[0]
    listed = re.findall(r"([a-z_]+)(?:\.py|/)", inside)
    assert sorted(listed) == sorted(wing for level in WINGS[:-2] for wing in level)
    assert [level_of(wing) for wing in listed] == sorted(map(level_of, listed))


def imported(source: str) -> set[str]:
    """Return the dotted names that a module imports: ``from a import b`` counts as
    a.b.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level_of(wing: str) -> int:
    return next(i for i, level in enumerate(WINGS) if wing in level)


def violations(module: str, source: str) -> list[str]:
    """Return what is wrong with the imports of one module, such as laws._law, of the
    library.
    """
    wrong = []
    wing = module.split(".")[0]
    for name in imported(source):
        package, *place = name.split(".")
        if package not in CORE | EXTRAS.get(wing, set()) | sys.stdlib_module_names:
            wrong.append(f"{module} imports {name}: not a core dependency")
        if name.startswith(("jax._src", "jax.core", "jax.interpreters")):
            wrong.append(f"{module} imports {name}: not public")
        if package != "lognorm_jax" or place[0] == wing:
            continue
        if level_of(place[0]) >= level_of(wing):
            wrong.append(f"{module} imports {name}: not below it")
        if any(part[0] == "_" for part in place[1:]) and wing not in ENTRIES:
            wrong.append(f"{module} imports {name}: private to another wing")
    return wrong


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "lognorm_jax").with_suffix("").parts)


SOURCES = {
    module_of(path): path for path in sorted((ROOT / "lognorm_jax").rglob("*.py"))
}


@pytest.mark.parametrize("module", SOURCES)
def test_exact_imports_run_downward(module):
    source = SOURCES[module].read_text()
    assert violations(module, source) == []
    assert "jax._src" not in source and "jax.core" not in source


def test_exact_no_module_imports_itself_by_way_of_others():
    graph = {
        module: {
            name.removeprefix("lognorm_jax.")
            for name in imported(path.read_text())
            if name.removeprefix("lognorm_jax.") in SOURCES
        }
        for module, path in SOURCES.items()
    }
    # raises for a circle
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert (
        order.index("_tools.checks")
        < order.index("weights")
        < order.index("theory.exact")
    )


def test_exact_layering_catches_what_it_should():
    assert violations("laws._law", "from lognorm_jax import ensembles")
    assert violations("masks", "from lognorm_jax import weights")
    assert violations("paths._dense", "import matplotlib.pyplot")
    assert violations("paths._dense", "from jax._src import core")
    assert violations("networks._mlp", "from lognorm_jax.paths import dense")
    assert violations("theory.exact", "from lognorm_jax.laws import _table")
    assert violations("__init__", "import matplotlib")
    assert not violations(
        "paths._dense", "import jax\nfrom lognorm_jax._tools import checks"
    )
    assert not violations("theory.exact", "from lognorm_jax.theory import _density")


def test_exact_only_one_module_draws_and_nothing_imports_experiments():
    for path in [*SOURCES.values(), *(ROOT / "experiments").glob("*.py")]:
        names = {name.split(".")[0] for name in imported(path.read_text())}
        assert "matplotlib" not in names or path.name in ("_figure.py", "plots.py")
        assert "experiments" not in names or path.parent.name == "experiments"
