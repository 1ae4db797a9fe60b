"""Every link of the pages leads to a file, and to a heading in it."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")


def headings(path):
    """Returns the anchors of a page's headings."""
    text = BLOCK.sub("", path.read_text())
    names = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in names}


def test_every_link_leads_somewhere():
    count = 0
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for file, heading in LINK.findall(page.read_text()):
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {file}"
            assert not heading or heading in headings(target), f"{page.name}: {heading}"
            count += 1
    assert count > 20


def test_links_of_the_site_stay_in_it():
    """Others end `mkdocs build --strict` with an error."""
    for page in DOCS.rglob("*.md"):
        for file, _ in LINK.findall(page.read_text()):
            target = os.path.normpath(page.parent / file)
            assert Path(target).is_relative_to(DOCS), f"{page.name}: {file}"


def test_every_picture_is_shown():
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    shown = {
        os.path.normpath(page.parent / file)
        for page in pages
        for file, _ in LINK.findall(page.read_text())
    }
    pictures = [path for path in DOCS.iterdir() if path.suffix in (".png", ".svg")]
    assert pictures
    assert not [path.name for path in pictures if str(path) not in shown]
