"""Every block of code on the site is run, every public name is documented, and numbers
are those of stored records.
"""

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import lognorm_jax
from docs._build import benchmarks, gallery, links, names
from experiments import __main__ as runner
from experiments import _cluster
from lognorm_jax import __main__ as command_line

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "DESCRIPTION.md", *PAGES]
BLOCK = re.compile(r"^```(\S+)?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# never run: they are no code
INERT = {"text", "bibtex"}
MOST = 300_000  # bytes of a figure


def blocks(kind):
    """Return (page, title, text) of all blocks of a kind."""
    return [
        (page, found[2], found[3])
        for page in TEXTS
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if found[1] == kind
    ]


def test_exact_every_block_is_of_a_kind_that_is_run():
    """Python as examples, which pytest collects from all pages, or as a file that the
    commands beside it need; the others by the tests below, or by the checks of every
    change.
    """
    kinds = {
        found[1]
        for page in TEXTS
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    }
    assert kinds <= {"python", "console", "bash"} | INERT
    for page, title, text in blocks("python"):
        assert ">>> " in text or "title=" in title, (page.name, text)


def options(page, tmp_path):
    """Write the files that the commands of a page need."""
    text = page.read_text(encoding="utf-8")
    for name, source in re.findall(
        r'^```python title="(.*?)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE
    ):
        (tmp_path / name).write_text(source, encoding="utf-8")
        sys.modules.pop(Path(name).stem, None)
    for name, source in re.findall(r"`(\w+\.json)`: `(.*?)`", text):
        (tmp_path / name).write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "session"),
    [(page, text) for page, _, text in blocks("console")],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_exact_commands_print_what_is_shown(
    page, session, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options(page, tmp_path)
    for line, shown in re.findall(
        r"^\$ lognorm (.*?)\n(.*?)(?=^\$|\Z)", session, re.DOTALL | re.MULTILINE
    ):
        code = command_line.main(line.split())
        out = capsys.readouterr().out
        assert code == ("FINDING" in shown)
        # but for breaks of lines, and what else an audit tells
        assert " ".join(shown.split()) in " ".join(out.split())
    assert session.count("$ lognorm") == len(re.findall(r"^\$", session, re.MULTILINE))


def test_exact_shell_commands_are_understood(monkeypatch):
    """Commands of experiments are parsed as they are; to install and to test is what
    the checks of every change do.
    """
    asked = []
    monkeypatch.setattr(runner, "run", lambda *given: asked.append(given) or 0)
    monkeypatch.setattr(_cluster, "join", lambda address: asked.append(address) or True)
    monkeypatch.setattr(runner, "keep_programs", lambda: None)
    lines = [line for *_, text in blocks("bash") for line in text.splitlines() if line]
    done = ("pip install ", "python3 -m venv ", ".venv/bin/")
    for line in lines:
        if not line.startswith(done):
            _, module, arguments = line.partition("python -m experiments ")
            assert module, line
            monkeypatch.setattr(sys, "argv", ["experiments", *arguments.split()])
            with pytest.raises(SystemExit) as stop:
                runner.main()
            assert stop.value.code == 0, line
    assert len(asked) >= 6


def lacks(name, function):
    """Return the sections that the docstring of a function should have and has not."""
    told = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    returns = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    refuses = re.search(r"\bchecks\.(?!known)\w+\(|raise ", inspect.getsource(function))
    needed = {
        "Args:": any(each != "self" for each in signature.parameters),
        "Returns:": returns,
        "Raises:": refuses is not None,
    }
    sections = [section for section, needs in needed.items() if needs]
    return [f"{name} {each}" for each in sections if f"\n{each}\n" not in told]


def documented():
    """Return the public functions and classes by name, with public methods."""
    found = {}
    for name in names.public():
        module, member = name.split(".")
        value = getattr(getattr(lognorm_jax, module), member)
        if inspect.isfunction(value) or inspect.isclass(value):
            found[name] = value
        if inspect.isclass(value):
            found |= {
                f"{name}.{method}": function
                for method, function in vars(value).items()
                if method[0] != "_"
                and inspect.isfunction(function)
                and method not in fields_of(value)
            }
    return found


def fields_of(kind):
    """Return the fields of a record, be it a dataclass or a named tuple."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind) if field.init]
    return getattr(kind, "_fields", ())


def test_exact_public_names_are_documented():
    public = documented()
    assert len(public) > 200
    missing = []
    for name, value in public.items():
        if inspect.isclass(value):
            told = inspect.getdoc(value) or ""
            fields = [field for field in fields_of(value) if field[0] != "_"]
            missing += [
                f"{name}.{field}" for field in fields if f"{field}:" not in told
            ]
        else:
            missing += lacks(name, value)
    assert missing == []


def test_exact_sections_that_are_missing_are_seen():
    def bare(x: int) -> int:
        """Return x."""
        if x:
            raise ValueError
        return x

    assert lacks("bare", bare) == ["bare Args:", "bare Returns:", "bare Raises:"]


def theory():
    """Return the numbers of the sections of the theory's pages."""
    pages = (ROOT / "docs" / "theory").glob("*.md")
    heading = re.compile(r"^## (\d+)\. .*\{ ?#theory-(\d+) ?\}$", re.MULTILINE)
    return [
        found for page in pages for found in heading.findall(page.read_text("utf-8"))
    ]


def test_exact_sections_of_the_theory_exist():
    sections = theory()
    assert all(number == anchor for number, anchor in sections)
    assert sorted(int(number) for number, _ in sections) == list(range(19))
    named = set()
    for source in (ROOT / "lognorm_jax").rglob("*.py"):
        named |= set(links.SECTION.findall(source.read_text(encoding="utf-8")))
        assert "derived, see" not in source.read_text(encoding="utf-8"), source
    assert named <= {number for number, _ in sections} and len(named) >= 15


def test_exact_names_in_code_exist():
    """Such as exact.law, on any page; and files of tests and experiments."""
    found = set()
    for page in TEXTS:
        text = page.read_text(encoding="utf-8")
        for module, name in re.findall(
            r"`(?:lognorm_jax\.)?([a-z]+)\.([a-z_]\w*)", text
        ):
            if module in lognorm_jax.__all__ and name != "py":
                assert hasattr(getattr(lognorm_jax, module), name), (page.name, name)
                found.add(f"{module}.{name}")
        for file in re.findall(r"`((?:tests|experiments|docs)/[a-z]\w*\.\w+)`", text):
            assert (ROOT / file).exists(), (page.name, file)
    assert len(found) > 100


def test_exact_every_experiment_has_a_room_a_record_and_a_figure():
    assert sorted(gallery.NAMES) == runner.names()
    for name in gallery.NAMES:
        told = gallery.paragraphs(name)
        assert {"Claim", "Expected", "Found", "Figure", "Time", "Command"} <= set(told)
        record = gallery.record(name)
        assert not record["quick"] and record["experiment"] == name
        assert "fail" not in gallery.verdicts(record)
        figure = (gallery.FIGURES / f"{name}.png").read_bytes()
        assert figure.startswith(b"\x89PNG") and len(figure) < MOST, name


def test_exact_readme_is_short_and_its_speeds_are_of_the_records():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    speed = " ".join(text.split("## Speed")[1].split("##")[0].split())
    cpu, gpu = (
        benchmarks.measured(gallery.record(name)) for name in benchmarks.RECORDS
    )
    short, shape = benchmarks.short, "100 × 100"
    transport, dense = f"transport, {shape}", f"dense normal, {shape}"
    gram, jvp = f"network gram, {shape}", f"network jvp, {shape}"
    law = cpu[f"exact law, {shape}, bernoulli", "law, ms"]
    for told in (
        f"{short(cpu[transport, 'paths/s'])} paths a second",
        f"{short(cpu[transport, '× NumPy'])} × a NumPy loop",
        f"{short(cpu[dense, 'paths/s'])} with all weights drawn",
        f"({short(cpu[dense, '× NumPy'])} ×)",
        f"{short(cpu[gram, 'paths/s'])} real networks in law",
        f"({short(cpu[gram, 'paths/s'] / cpu[jvp, 'paths/s'])} × drawn whole)",
        f"takes {short(law)} ms",
        f"{short(gpu[gram, 'paths/s'])} networks a second",
    ):
        assert told in speed, told


def test_exact_the_lesson_is_its_script():
    jupytext = pytest.importorskip("jupytext")
    folder = ROOT / "docs" / "learn"
    script = jupytext.read(folder / "lesson.py")
    notebook = json.loads((folder / "lesson.ipynb").read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in script.cells]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
