"""Tutorials: scripts that are run as notebooks, and shown with what they print."""

import hashlib
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import platformdirs
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sorted((ROOT / "docs" / "learn").glob("[a-z]*.py"))
CACHE = platformdirs.user_cache_path("lognorm_jax") / "notebooks"
AT_ONCE = 2  # each takes a processor
# figures for pages, and programs that are soon compiled and kept for the next build
SETTINGS = {
    "MATPLOTLIBRC": str(Path(__file__).with_name("matplotlibrc")),
    "XLA_FLAGS": "--xla_backend_optimization_level=1 "
    "--xla_cpu_use_fusion_emitters=false",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE.with_name("programs")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}
NOTEBOOK = "This page is a notebook: [download it]({name}.ipynb){{ download }}.\n"


def pages() -> dict[str, str | bytes]:
    """Return the page of each tutorial, its figures, and the notebook."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = pool.map(_run, SCRIPTS)
        shown = [_shown(script.stem, run) for script, run in zip(SCRIPTS, runs)]
    return {name: content for made in shown for name, content in made.items()}


def _digest(script: Path) -> str:
    """Return what the outputs of a tutorial depend on, in short."""
    digest = hashlib.sha256(script.read_bytes())
    for source in sorted((ROOT / "lognorm_jax").rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _run(script: Path) -> nbformat.NotebookNode:
    """Return the notebook of a script, executed, or as it was executed before."""
    kept = CACHE / f"{script.stem}-{_digest(script)}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    os.environ |= {name: os.environ.get(name, SETTINGS[name]) for name in SETTINGS}
    notebook = jupytext.read(script)
    client = NotebookClient(
        notebook, timeout=600, startup_timeout=300, kernel_name="python3"
    )
    # what a cell prints comes as a message; this is what the kernel itself would say
    client.execute(stderr=subprocess.DEVNULL)
    CACHE.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, kept)
    return notebook


def _shown(name: str, notebook: nbformat.NotebookNode) -> dict[str, str | bytes]:
    """Return the files of a tutorial by their place in the site."""
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") == "stderr"
    ]
    if errors:
        raise ValueError(f"docs/learn/{name}.py prints warnings: {errors[0].text}")
    body, resources = MarkdownExporter().from_notebook_node(notebook)
    figures = {}
    for figure, content in resources["outputs"].items():
        place = f"{name}_{figure.removeprefix('output_')}"
        body = body.replace(f"![png]({figure})", f"![{_words(name)}]({place})")
        figures[f"learn/{place}"] = content
    title, rest = body.strip().split("\n", 1)
    page = f"{title}\n\n{NOTEBOOK.format(name=name)}\n{_outputs(rest)}"
    made = {f"learn/{name}.md": page, **figures}
    if not (ROOT / "docs" / "learn" / f"{name}.ipynb").exists():
        made[f"learn/{name}.ipynb"] = nbformat.writes(notebook)
    return made


def _words(name: str) -> str:
    return f"figure of the cell above, of {name.replace('_', ' ')}"


def _outputs(body: str) -> str:
    """Return the text with outputs, which are indented, as blocks of their own kind."""

    def fenced(match: re.Match) -> str:
        lines = [line[4:] for line in match[0].strip("\n").split("\n")]
        text = "\n".join(lines).strip()
        if not text:
            return "\n"
        return f"\n```{{ .text .output .no-copy }}\n{text}\n```\n\n"

    parts = re.split(r"(^```.*?^```$)", body, flags=re.DOTALL | re.MULTILINE)
    block = re.compile(r"(?:^\n)(?:^(?: {4}.*)?\n)*^ {4}.*\n(?:^ *\n)*", re.MULTILINE)
    parts[::2] = [block.sub(fenced, part) for part in parts[::2]]
    return "".join(parts)
