"""Links that are made of words: public names and experiments in code, and sections of
the theory.
"""

import re

from docs._build import gallery, names

CODE = re.compile(r"<code>(?:lognorm_jax\.)?([a-z_]+)\.([A-Za-z_]\w*)(\([^<]*\))?</code>")
EXPERIMENT = re.compile(
    rf"<code>(?:python -m experiments )?({'|'.join(gallery.NAMES)})</code>"
)
SECTION = re.compile(r"theory\s+sections?\s+(\d+)")
# headings, links and blocks of code stay as they are
KEPT = re.compile(r"(<a\b.*?</a>|<pre\b.*?</pre>|<h[1-6]\b.*?</h[1-6]>)", re.DOTALL)


def linked(page: str, public: dict[str, str]) -> str:
    """Return a page in which public names, experiments and sections of the theory are
    references, which have to exist.
    """
    parts = KEPT.split(page)
    parts[::2] = [_linked(part, public) for part in parts[::2]]
    return "".join(parts)


def _linked(text: str, public: dict[str, str]) -> str:
    def named(match: re.Match) -> str:
        module, name = match[1], match[2]
        if f"{module}.{name}" not in public:
            return match[0]
        return _reference(f"lognorm_jax.{module}.{name}", match[0])

    text = EXPERIMENT.sub(
        lambda match: _reference(f"experiment-{match[1]}", match[0]), text
    )
    text = CODE.sub(named, text)
    return SECTION.sub(lambda match: _reference(f"theory-{match[1]}", match[0]), text)


def _reference(identifier: str, shown: str) -> str:
    return f'<autoref identifier="{identifier}">{shown}</autoref>'
