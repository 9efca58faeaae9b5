"""Hooks of the documentation site (mkdocs.yml): pages and files that stand outside ``docs/``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# page of the site -> file of the repository, so that nothing is written twice
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s]+)(\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages at the top of the repository, and every file outside ``docs/`` that a page links to."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=LINK.sub(_from_top, text)))
    linked: set[str] = set()
    for file in list(files.documentation_pages()):
        for match in LINK.finditer(file.content_string):
            if match[2].startswith("../"):
                linked.add(match[2].removeprefix("../").partition("#")[0])
    for name in sorted(linked):
        if (ROOT / name).is_file():
            files.append(File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that leave ``docs/`` to the copies in the site."""
    return LINK.sub(lambda match: match[1] + re.sub(r"^\.\./", "repository/", match[2]) + match[3], markdown)


def _from_top(match: re.Match[str]) -> str:
    """A link of a page at the top of the repository, as seen from ``docs/``."""
    target = match[2]
    for page, source in PAGES.items():
        if target == source:
            return match[1] + page + match[3]
    inside = target.removeprefix("docs/")
    return match[1] + (inside if inside != target else f"../{target}") + match[3]
