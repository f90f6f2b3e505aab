"""Every `atrous` command on a documentation page names a command and options that exist, also where it is not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from atrous.scripts.bench import BenchGroup
from atrous.scripts.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(?:bash|console|sh)?[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def find_commands(text: str) -> Iterator[list[str]]:
    """The words after `atrous` of each command in the blocks of a page, without pipes, comments and redirections."""
    for block in _BLOCK.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:srun |time )?atrous ([a-z].*)", line.strip())
            if found and not re.search(r"[a-z]: |:$", found[1]):  # the output `atrous COMMAND: message` in an example
                yield _split(found[1])


def _split(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [index for index, word in enumerate(words) if word[:1] in set("|&;<>")]
    return words[: min(ends, default=len(words))]


def parse(words: list[str]) -> None:
    """Parse options as click does, without converting values, whose files do not exist here."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        if isinstance(command, BenchGroup) and words[0] not in command.commands:
            words = ["run", *words]
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    command.make_parser(click.Context(command)).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(page: Path) -> None:
    wrong = []
    for words in find_commands(page.read_text(encoding="utf-8")):
        try:
            parse(words)
        except (click.UsageError, AssertionError) as error:
            wrong.append(f"atrous {' '.join(words)}: {error}")
    assert not wrong, "\n".join(wrong)


def test_an_unknown_option_and_a_command_without_a_page_are_found() -> None:
    (words,) = find_commands("```bash\n$ OMP_NUM_THREADS=1 atrous segment b photo.jpg --no-such 1 | head\n```\n")
    assert words == ["segment", "b", "photo.jpg", "--no-such", "1"]
    with pytest.raises(click.UsageError, match="no-such"):
        parse(words)
    with pytest.raises(AssertionError, match="no command"):
        parse(["sgment"])
