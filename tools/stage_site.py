"""Stage the pages of the site: `python -m tools.stage_site build/site-source` (`make site`).

Copies docs/ and the Markdown files beside it into one folder, with links between them adjusted; a link to any other
file of the repository leads to its page on the web. A link whose text is a page's file name gets the page's title, and
the note of a block of code (tools/run_readme.py) becomes the block's title, as the generator takes no others.
A page without a title is an error; the site generator reports links without a target.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"(\[[\w./-]+\.md)?(?<!!)(\]\()([^)#:\s]+)((?:#[^)]*)?\))")
_TITLE = re.compile(r"^# (\S.*)$", re.MULTILINE)
_NOTE = re.compile(r"^```(\w+) +(\S.*)$", re.MULTILINE)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Write the pages to FOLDER, which is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.md"))
    repository = read_repository(ROOT / "pyproject.toml")
    for source in [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in BESIDE)]:
        place = source.relative_to(DOCS) if source.is_relative_to(DOCS) else Path(source.name)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(convert_page(source, place, repository), encoding="utf-8")


def read_repository(project: Path) -> str:
    """The address of the repository's files, from pyproject.toml."""
    homepage = re.search(r'^Homepage = "(.+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
    assert homepage, f"{project} names no Homepage"
    return f"{homepage[1]}/blob/main"


def convert_page(source: Path, place: Path, repository: str) -> str:
    """The text of a page with its links as they must be at `place`, a path in the site."""
    text = source.read_text(encoding="utf-8")
    if not _TITLE.search(text):
        raise click.ClickException(f"{source}: the page has no title")

    def convert(found: re.Match[str]) -> str:
        name, target = found[1] or "", (source.parent / found[3]).resolve()
        up = "../" * (len(place.parts) - 1)
        if target.is_dir() and (target / "README.md").exists():
            target /= "README.md"
        if target.is_relative_to(DOCS) and target.is_file():
            title = _TITLE.search(target.read_text(encoding="utf-8")) if name else None
            return f"{f'[{title[1]}' if title else name}]({up}{target.relative_to(DOCS).as_posix()}{found[4]}"
        if target.name in BESIDE and target.parent == ROOT:
            return f"{name}]({up}{target.name}{found[4]}"
        if not target.exists():
            raise click.ClickException(f"{source}: {found[3]} does not exist")
        return f"{name}]({repository}/{target.relative_to(ROOT).as_posix()}{found[4]}"

    return _NOTE.sub(r'```\1 title="\2"', _LINK.sub(convert, text))


if __name__ == "__main__":
    command()
