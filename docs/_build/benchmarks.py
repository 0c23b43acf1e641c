"""The page of benchmarks: every number is that of a stored record."""

from docs._build import gallery

RECORDS = ("throughput", "throughput_h200")
PATHS = {
    "transport": "`paths.transport`, `stream`",
    "transport, kept": "`paths.transport`, `sample`",
    "dense normal": "`paths.dense`, normal weights",
    "dense Rademacher": "`paths.dense`, Rademacher weights",
    "network jvp": "`paths.jacobian`, a network drawn whole",
    "network gram": "`paths.gram`, the same network in law",
    "PyTorch": "batches of products in PyTorch",
    "NumPy loop": "NumPy loop",
}
SHAPES = ("100 × 100", "1000 × 20", "30 × 1000")
TRAININGS = {
    "training": "`training.path`, with a History",
    "training, bare": "loss and one gradient norm only",
    "training, products": "the matrix products alone",
    "training, PyTorch": "loop over seeds in PyTorch",
}
TRAINED = ("16 × 16", "32 × 32", "64 × 64")
HOW = """\
# Benchmarks

Every number on this page is that of a stored record of `python -m experiments throughput`
([what is timed, and how](gallery/throughput.md)): medians of five runs after warm-up, float32, all
ways in one process, in turns. Machines like these are noisy: ratios differ by a third from run to run.
"""


def pages() -> dict[str, str]:
    """Return the page."""
    lines = [HOW]
    for name in RECORDS:
        record = gallery.record(name)
        lines += [f"## {_machine(record)}", ""]
        lines += _speeds(measured(record))
    lines += ["## Experiments", "", *_experiments()]
    return {"benchmarks.md": "\n".join(lines)}


def measured(record: dict) -> dict[tuple[str, str], float]:
    """Return the numbers of a record by case and quantity."""
    return {
        (row["case"], row["quantity"]): row["measured"] for row in record["checks"]
    }


def short(number: float) -> str:
    """Return a number to two digits, as speeds and ratios deserve it."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _machine(record: dict) -> str:
    device = record["machine"]["devices"].removeprefix("1 × ")
    cores = f"{record['machine']['cores']} cores of {record['machine']['processor']}"
    jax = f"JAX {record['versions']['jax']}"
    return f"{cores}, {jax}" if "cpu" in device else f"{device}, {jax}; {cores}"


def _speeds(found: dict) -> list[str]:
    """Return the tables of one record."""
    lines = ["### Paths per second through ReLU layers, and the ratio to the loop", ""]
    lines += _table("width × depth", SHAPES, PATHS, found, "paths/s", "× NumPy")
    lines += ["### Raw rates of `jax.random`, 10⁶ numbers a second", ""]
    lines += _raw(found)
    lines += ["### Training: seeds × steps a second, and the ratio to PyTorch", ""]
    lines += [
        "ReLU networks, batches of 64, plain gradient descent, 20 steps. With one seed, "
        f"`training.log_norms` adds {found['step, log_norms, 64 × 32', 'of a step']:.0%} "
        "to a step at 64 × 32.",
        "",
    ]
    lines += _table(
        "width × depth", TRAINED, TRAININGS, found, "seed-steps/s", "× PyTorch"
    )
    lines += ["### Exact laws: from a new ensemble to the law, and 4,096 of its cdf", ""]
    lines += _pairs(found, "exact law, ", "layers", "law, ms", "4,096 of its cdf, ms")
    lines += ["### Answers: a question asked in a fresh process, and asked again", ""]
    return lines + _pairs(found, "answer, ", "1,000 samples", "first, s", "again, s")


def _table(corner, shapes, ways, found, speed, ratio) -> list[str]:
    """Return a table of speeds, each with its ratio."""
    lines = [f"| {corner} | {' | '.join(shapes)} |", "|---" * (1 + len(shapes)) + "|"]
    for way, label in ways.items():
        cells = []
        for shape in shapes:
            case = f"{way}, {shape}"
            times = short(found[case, ratio])
            cells.append(f"{short(found[case, speed])} ({times} ×)")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return [*lines, ""]


def _raw(found) -> list[str]:
    rates = ("10⁶ normal, 2²²", "10⁶ normal, 2¹⁶", "10⁶ bits, 2²²", "10⁶ bits, 2¹⁶")
    heads = ("normal, calls for 2²²", "for 2¹⁶", "32 bits, calls for 2²²", "for 2¹⁶")
    lines = [f"| beside | {' | '.join(heads)} |", "|---" * 5 + "|"]
    for shape in SHAPES:
        cells = [short(found[f"raw beside {shape}", rate]) for rate in rates]
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return [*lines, ""]


def _pairs(found, prefix, corner, first, second) -> list[str]:
    """Return a table of two numbers a case, of the cases with a prefix."""
    lines = [f"| {corner} | {first} | {second} |", "|---|---|---|"]
    cases = dict.fromkeys(case for case, _ in found if case.startswith(prefix))
    for case in cases:
        numbers = f"{found[case, first]:.2g} | {found[case, second]:.2g}"
        lines.append(f"| {case.removeprefix(prefix)} | {numbers} |")
    return [*lines, ""]


def _experiments() -> list[str]:
    """Return what each experiment took in full, and what came of it."""
    lines = ["| experiment | seconds | rows that pass | shown | machine |", "|---" * 5 + "|"]
    for name in gallery.NAMES:
        record = gallery.record(name)
        verdicts = gallery.verdicts(record)
        machine = record["machine"]
        lines.append(
            f"| [{name}](gallery/{name}.md) | {record['seconds']:.0f} "
            f"| {verdicts.get('pass', 0)} | {verdicts.get('shown', 0)} "
            f"| {machine['cores']} cores, {machine['devices']} |"
        )
    return [*lines, ""]
