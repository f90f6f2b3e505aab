"""The staged pages of the site: links between pages, to files of the repository, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tools import stage_site
from tools.stage_site import BESIDE, DOCS, ROOT, convert_page

CONFIGURATION = (ROOT / "zensical.toml").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} | set(BESIDE)
    assert pages == set(re.findall(r'"([\w./-]+\.md)"', CONFIGURATION))


def test_the_addresses_are_those_of_the_package() -> None:
    homepage = stage_site.read_repository(ROOT / "pyproject.toml").removesuffix("/blob/main")
    assert f'repo_url = "{homepage}"' in CONFIGURATION
    assert homepage in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_from_a_folder_and_from_beside_the_docs() -> None:
    page = convert_page(DOCS / "hub.md", Path("hub.md"), "R")
    assert "](" not in page or "](R/" not in page
    contributing = convert_page(ROOT / "CONTRIBUTING.md", Path("CONTRIBUTING.md"), "https://r/blob/main")
    assert "](architecture.md)" in contributing
    assert "](https://r/blob/main/tests/goldens/README.md)" in contributing
    errors = convert_page(DOCS / "errors" / "no-attribute-readnetfromcaffe.md", Path("errors/x.md"), "R")
    assert "](../cookbook/README.md)" in errors
    assert "](../SECURITY.md" in convert_page(DOCS / "reading.md", Path("deep/reading.md"), "R")


def test_notes_of_blocks_and_names_of_pages(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```bash an empty machine\nls\n```\n")
    assert '```bash title="an empty machine"\nls\n```\n' in convert_page(page, Path("page.md"), "R")
    for source in DOCS.rglob("*.md"):  # the generator shows a block with other words as text
        text = convert_page(source, source.relative_to(DOCS), "R")
        assert not re.search(r"^```\w+ (?!title=)", text, re.MULTILINE)
        assert not re.search(r"\[[\w/-]+\.md\]\((?!\.*/?(CHANGELOG|CONTRIBUTING|SECURITY)|R/)", text)


def test_a_page_without_a_title_and_a_dead_link_are_errors(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no title")
    with pytest.raises(click.ClickException, match="no title"):
        convert_page(page, Path("page.md"), "R")
    page.write_text("# Page\n\n[x](none.md)\n")
    with pytest.raises(click.ClickException, match=r"none\.md does not exist"):
        convert_page(page, Path("page.md"), "R")
