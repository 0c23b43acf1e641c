"""Examples in docstrings as blocks of code."""

import re

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!>>>)\S.*\n?|^\.\.\. ?.*\n?)*)+", re.MULTILINE)

# at the beginning of a description, where Markdown would take it for a quotation
GREATER = re.compile(r"^( +[\w*]+(?: \(.*?\))?: |  +)>(?=[ =])", re.MULTILINE)


class Examples(griffe.Extension):
    """Fence what begins with >>>, which Markdown would take for quotations."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        """Fence the examples of one function, class or module."""
        if obj.docstring is not None:
            text = GREATER.sub(r"\1\\>", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(_fenced, text)


def _fenced(match: re.Match) -> str:
    return f"```pycon\n{match[0].rstrip()}\n```\n"
