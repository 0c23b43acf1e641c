"""What one gets by installing: all modules, their types, a description that renders."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import lognorm_jax

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def relative_links(text):
    """Return the targets of links and images, in Markdown or HTML, that are not
    absolute.
    """
    targets = re.findall(r"\]\(\s*<?([^)>\s]+)", text)
    targets += re.findall(r"^\s*\[[^\]]+\]:\s*(\S+)", text, flags=re.MULTILINE)
    targets += re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", text)
    return [target for target in targets if not target.startswith(("https://", "#"))]


def test_exact_description_renders_anywhere():
    """A package index shows it without the files of the repository."""
    description = (ROOT / PROJECT["project"]["readme"]).read_text()
    assert relative_links(description) == []
    assert "lognorm_jax" in description and len(description) > 1000


def test_exact_relative_links_are_found():
    assert len(relative_links((ROOT / "README.md").read_text())) > 10
    assert relative_links("![a](figures/a.png)") == ["figures/a.png"]
    assert (
        relative_links('<img src="a.png">') == relative_links("[a]: a.png") == ["a.png"]
    )
    assert relative_links("[a](https://arxiv.org/abs/1812.05994)") == []


def test_exact_one_version():
    """Of the package, its citation, its newest notes and the page on how to cite."""
    version = lognorm_jax.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {version}\n" in citation
    (date,) = re.findall(r'^date-released: "(.*)"$', citation, re.MULTILINE)
    assert f"\n## [{version}] - {date}\n" in (ROOT / "CHANGELOG.md").read_text()
    cite = (ROOT / "docs" / "how" / "cite.md").read_text()
    assert f"version = {{{version}}}" in cite and f"year    = {{{date[:4]}}}" in cite


def test_exact_types_are_declared():
    assert (ROOT / "lognorm_jax" / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["lognorm_jax"]


@pytest.mark.slow
def test_exact_wheel_has_types_all_modules_and_the_description(tmp_path):
    """Built as pip does, which needs the network for its build tools."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "lognorm_jax", source / "lognorm_jax")
    for name in ("pyproject.toml", "LICENSE", PROJECT["project"]["readme"]):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        text = wheel.read(metadata).decode()
    files = [*(ROOT / "lognorm_jax").rglob("*.py"), ROOT / "lognorm_jax" / "py.typed"]
    assert {str(file.relative_to(ROOT)) for file in files} <= names
    assert any(name.count("/") == 2 for name in names)  # folders and all
    assert f"Version: {lognorm_jax.__version__}\n" in text
    assert (
        ROOT / PROJECT["project"]["readme"]
    ).read_text() in text and not relative_links(text)
