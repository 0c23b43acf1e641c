"""Events of the site's builder: pages that are made are added, pages are finished, and
what is public has to be there.
"""

import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from docs._build import (  # noqa: E402
    benchmarks,
    gallery,
    links,
    maths,
    names,
    notebooks,
    reference,
    root_pages,
)

PUBLIC = names.public()
DIRECTIVE = re.compile(r" *# doctest: \+\w+$", re.MULTILINE)


def on_config(config):
    """Put the pages that are made into the navigation, and watch what they are of."""
    places = {"Gallery": gallery.nav(), "API": reference.nav()}
    config.nav = [
        {title: places.get(title, pages) for title, pages in entry.items()}
        for entry in config.nav
    ]
    config.watch += [str(ROOT / "lognorm_jax"), str(ROOT / "experiments")]
    return config


def on_files(files, config):
    """Add the pages that are made."""
    for made in (reference, gallery, benchmarks, root_pages, notebooks):
        for place, content in made.pages().items():
            files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leave out what only the tests have to know of an example."""
    return DIRECTIVE.sub("", markdown)


def on_page_content(html, page, config, files):
    """Draw formulas, and link public names and sections of the theory."""
    return links.linked(maths.drawn(html), PUBLIC)


def on_post_build(config):
    """Refuse a site on which a public name has no entry."""
    site = Path(config.site_dir)
    missing = [
        name
        for name, page in PUBLIC.items()
        if f'id="lognorm_jax.{name}"'
        not in (site / page.replace(".md", ".html")).read_text(encoding="utf-8")
    ]
    if missing:
        raise PluginError(f"public names without an entry: {', '.join(missing)}")
