"""Pages of the API, one a wing, and of the command line."""

import contextlib
import io
from unittest import mock

import lognorm_jax
from docs._build import names
from lognorm_jax import __main__ as command

VERBS = ("law", "advise", "gains", "defaults", "audit")


def pages() -> dict[str, str]:
    """Return the text of each page."""
    made = {
        f"api/{wing}.md": _wing(title, modules)
        for wing, (title, modules) in names.WINGS.items()
    }
    return {"api/index.md": _contents(), **made, "api/command_line.md": _command_line()}


def nav() -> list:
    """Return the pages in order."""
    wings = [{title: f"api/{wing}.md"} for wing, (title, _) in names.WINGS.items()]
    return ["api/index.md", *wings, {"The command line": "api/command_line.md"}]


def _contents() -> str:
    lines = [
        "# API",
        "",
        "`import lognorm_jax` gives all modules. By wing, from what is imported first:",
        "",
    ]
    for wing, (title, modules) in names.WINGS.items():
        lines += [f"## [{title}]({wing}.md)", ""]
        for module in modules:
            listed = ", ".join(f"`{module}.{name}`" for name in names.members(module))
            lines += [f"**{module}**: {_first_sentence(module)}", "", listed, ""]
    return "\n".join([*lines, "## [The command line](command_line.md)", ""])


def _first_sentence(module: str) -> str:
    documentation = getattr(lognorm_jax, module).__doc__.split("\n\n")[0]
    sentence = " ".join(documentation.split())
    first = sentence.split(". ")[0].rstrip(".")
    return first if first.endswith("?") else f"{first}."


def _wing(title: str, modules: tuple[str, ...]) -> str:
    lines = [f"# {title}", ""]
    for module in modules:
        listed = ", ".join(f'"{name}"' for name in names.members(module))
        lines += [
            f"## {module} {{#{module}}}",
            "",
            f"::: lognorm_jax.{module}",
            "    options:",
            "      show_root_heading: false",
            "      show_root_toc_entry: false",
            f"      members: [{listed}]",
            "",
        ]
    return "\n".join(lines)


def _command_line() -> str:
    lines = [
        "# The command line",
        "",
        "`lognorm`, or `python -m lognorm_jax`, comes with the extra `cli`. Exit codes: 0, "
        "1 for findings, 2 for bad usage.",
        "",
    ]
    for verb in VERBS:
        lines += [f"## lognorm {verb}", "", "```text", _help(verb), "```", ""]
    return "\n".join(lines)


def _help(verb: str) -> str:
    """Return what ``lognorm VERB --help`` prints, 88 columns wide and without
    colours.
    """
    out = io.StringIO()
    plain = {"COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"}
    with (
        mock.patch.dict("os.environ", plain),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        command.main([verb, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
