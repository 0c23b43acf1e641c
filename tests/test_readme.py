"""The README's commands and words; its example runs as a doctest."""

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands():
    return re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)


def test_exact_two_commands_of_one_line():
    assert len(commands()) == 2
    main, test = commands()
    assert main.endswith("python -m experiments lognormal_law")
    assert "pytest" in test and "--x64" in test


def test_exact_core_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        re.split(r"[<>=~]", requirement)[0] for requirement in project["dependencies"]
    }
    assert names == {"jax", "jaxlib", "numpy", "scipy", "optax"}
    assert all(">=" in requirement for requirement in project["dependencies"])
    for command in commands():
        for extra in re.search(r"\.\[(.*?)\]", command)[1].split(","):
            assert extra in project["optional-dependencies"]


def test_exact_files_named_exist():
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / path).exists(), path
