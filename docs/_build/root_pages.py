"""Pages that lie at the root of the repository, as it is the custom."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def pages() -> dict[str, str]:
    """Return the text of each."""
    return {
        place: (ROOT / file).read_text(encoding="utf-8")
        for place, file in PAGES.items()
    }
