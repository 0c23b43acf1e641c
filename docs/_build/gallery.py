"""The gallery: each experiment's claim, figure, finding and command, of its docstring;
and what its stored record says.
"""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FIGURES = ROOT / "experiments" / "figures"

# by what they are about; every experiment has one place
ROOMS = {
    "The law": (
        "lognormal_law",
        "exact_vs_limit",
        "martingale_paths",
        "moment_growth",
        "universality",
    ),
    "More exact laws": ("volumes", "spectra", "tangent_kernel", "published_numbers"),
    "Architectures": (
        "atlas",
        "transformers",
        "residual_networks",
        "convolutional_networks",
        "activations",
    ),
    "Your model": ("museum", "your_model"),
    "Training": (
        "training_stability",
        "collapse_at_scale",
        "largest_rate",
        "trainability",
        "step_zero_predicts",
    ),
    "Speed": ("throughput", "crossover"),
}
NAMES = tuple(name for room in ROOMS.values() for name in room)
LABELS = ("Expected", "Found", "Figure:", "Time:", "Command:")


def paragraphs(name: str) -> dict[str, list[str]]:
    """Return the paragraphs of an experiment's docstring by what they tell: the claim,
    and each label; what follows a paragraph without a label goes with it.
    """
    source = (ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")
    told, label = {}, "Claim"
    text = ast.get_docstring(ast.parse(source))
    # the last lines, with figure, time and command, are paragraphs of their own
    for paragraph in re.split(r"\n\n|\n(?=(?:Figure|Time|Command): )", text):
        found = [known for known in LABELS if paragraph.startswith(known)]
        label = found[0].rstrip(":") if found else label
        told.setdefault(label, []).append(_markdown(paragraph))
    return told


def _markdown(paragraph: str) -> str:
    """Return a paragraph on one line, with code as Markdown has it."""
    words = " ".join(paragraph.split()).replace("``", "`")
    return words.replace("*", r"\*")


def record(name: str) -> dict:
    """Return the stored record of an experiment's full run."""
    stored = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    if not name.startswith(stored["experiment"]):
        raise ValueError(f"{name}.json is a record of {stored['experiment']}")
    return stored


def nav() -> list:
    """Return the pages in order."""
    return ["gallery/index.md", *(f"gallery/{name}.md" for name in NAMES)]


def pages() -> dict[str, str | bytes]:
    """Return the page of each experiment, its figure, and the overview."""
    figures = {
        f"gallery/{name}.png": (FIGURES / f"{name}.png").read_bytes() for name in NAMES
    }
    made = {f"gallery/{name}.md": _page(name) for name in NAMES}
    return {"gallery/index.md": _overview(), **made, **figures}


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.?])\s", text, maxsplit=1)[0]


def _overview() -> str:
    lines = [
        "# Gallery",
        "",
        "Each experiment is a claim, held against what was computed; the command exits "
        "with 1 if a row of its table fails. Commands are run in the folder of a clone; "
        "times are of a quiet machine, and stored runs may have shared theirs.",
        "",
    ]
    for room, experiments in ROOMS.items():
        lines += [f"## {room}", ""]
        for name in experiments:
            told = paragraphs(name)
            alternative = told["Figure"][0].removeprefix("Figure: ")
            lines += [
                f"### [{_title(name)}]({name}.md)",
                "",
                told["Claim"][0],
                "",
                f"[![{alternative}]({name}.png)]({name}.md)",
                "",
            ]
    return "\n".join(lines)


def _page(name: str) -> str:
    told, run = paragraphs(name), record(name)
    alternative = told["Figure"][0].removeprefix("Figure: ")
    command = told["Command"][0].removeprefix("Command: ")
    lines = [
        f"# {_title(name)} {{#experiment-{name}}}",
        "",
        *_spaced(told["Claim"]),
        f"![{alternative}]({name}.png)",
        "",
        *_titled("Finding", told.get("Found", [])),
        *_titled("What is expected, and checked", told["Expected"]),
        "## The run",
        "",
        "```bash",
        command,
        "```",
        "",
        f"{told['Time'][0].removeprefix('Time: ')} {_stored(run)}",
        "",
        *_checks(run),
    ]
    return "\n".join(lines)


def _spaced(paragraphs: list[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (paragraph, "")]


def _titled(title: str, paragraphs: list[str]) -> list[str]:
    """Return paragraphs under a heading, less the label that they begin with."""
    if not paragraphs:
        return []
    first = re.sub(r"^(Expected|Found)[,:]? ", "", paragraphs[0])
    return [f"## {title}", "", *_spaced([first[0].upper() + first[1:], *paragraphs[1:]])]


def verdicts(run: dict) -> dict[str, int]:
    """Return how many rows of a record have each verdict."""
    found = [row["verdict"] or "shown" for row in run["checks"]]
    return {verdict: found.count(verdict) for verdict in dict.fromkeys(found)}


def _stored(run: dict) -> str:
    """Return a sentence on the stored run."""
    counts = ", ".join(
        f"{count} {verdict}" for verdict, count in sorted(verdicts(run).items())
    )
    machine, versions = run["machine"], run["versions"]
    return (
        f"The stored run took {run['seconds']:.0f} s on {machine['processor']}, "
        f"{machine['cores']} cores, {machine['devices']}, JAX {versions['jax']}, seed "
        f"{run['seed']}. Rows of its table: {counts}."
    )


def _checks(run: dict) -> list[str]:
    """Return the table of checks, folded."""
    lines = [
        '??? note "All rows"',
        "",
        "    | case | quantity | measured | expected | verdict |",
        "    |---|---|---|---|---|",
    ]
    for row in run["checks"]:
        cells = (row["case"], row["quantity"], _measured(row), _expected(row))
        told = " | ".join(str(cell).replace("|", r"\|") for cell in cells)
        lines.append(f"    | {told} | {row['verdict'] or 'shown'} |")
    return [*lines, ""]


def _measured(row: dict) -> str:
    if row["interval"] is not None:
        low, high = row["interval"]
        return f"{row['measured']:.4g} [{low:.4g}, {high:.4g}]"
    if row["error"]:
        return f"{row['measured']:.4g} ± {row['error']:.1g}"
    return f"{row['measured']:.4g}"


def _expected(row: dict) -> str:
    if row["relation"]:
        return row["relation"]
    if row["expected"] is not None:
        allowed = f" ± {row['allowance']:.2g}" if row["allowance"] else ""
        return f"{row['expected']:.4g}{allowed}"
    return f"≤ {row['allowance']:.3g}" if row["allowance"] else ""
