"""Links in the documentation point to existing files and headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.folders import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *REPOSITORY.glob("*/README.md")]
)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
NAMED = re.compile(
    r"(?<![\w/.])((?:harness|tasks|tests|benchmarks|configs|docs)/[\w/.-]+\.(?:py|md|yaml|npz))"
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    bare = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in bare}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        file, _, anchor = target.partition("#")
        found = page.parent / file if file else page
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            broken.append(target)
    assert broken == []


# the changelog names files that were
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name
)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    # mine.py and mine.yaml stand for the reader's own
    missing = {name for name in named if "mine." not in name and not (REPOSITORY / name).exists()}
    assert missing == set()


def test_every_page_of_the_docs_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"(\w+\.md)", navigation))


def test_links_are_recognised() -> None:
    assert LINK.findall("[a](b.md#c) ![d](e.png) [f](https://g)") == ["b.md#c", "e.png"]
    assert FENCE.sub("", "a\n```bash\n[x](y)\n```\nb") == "a\n\nb"
