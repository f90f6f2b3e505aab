"""Check the project's text for phrases that its style avoids: `python -m tools.check_words [PATH ...]`.

Reads the tracked source and text files, all or those below the given paths. Each finding is one line, with a rewrite.
A space in a pattern matches line breaks and comment markers, so phrases that wrap are found. `ALLOWED` lists true uses.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = (".py", ".pyi", ".md", ".cpp", ".h", ".inl", ".proto", ".toml", ".cff", ".sh", "Makefile")
#: they contain the phrases on purpose
EXCLUDED = ("tools/check_words.py", "tests/tools/test_check_words.py")

#: (pattern, rewrite); a match of the group `fine` is not a finding
_PATTERNS = (
    (r'"""(?:What|How|Whose|Which|Who|Why)\b', "begin the docstring with a noun or an imperative verb"),
    (r"(?P<fine>\.tell\()|\b(?:tell|tells|telling|told)\b|\btell_\w+", "detect, identify, report, distinguish"),
    (r"\bat hand\b", "available"),
    (r"\bat will\b", "freely, at any size"),
    (r"\b(?P<fine>so many that)\b|\bso many\b", "give the number, or n"),
    (r"\b(?i:nobody|whoever|whomever|whosoever)\b", "name the subject"),
    (r"\bin vain\b", "without success; retries"),
    (r"\bworth a word\b", "warn about it"),
    (r"\b(?:gave|give|gives|given|giving) up\b(?! to)", "stop, discard"),
    (r"\bfor ever\b", "forever, without end"),
    (r"\bas (?:often|much|many|long) as one\b", "repeatedly, any number of"),
    (r"\b(?:dressed up|vouch\w*|rubbish|moods?|slip of the pen|said once)\b", "say it plainly"),
    (r"\b(?:takes|finds|knows|gives|needs|reads|sees|holds|makes|keeps) not\b", "rejects, does not find"),
    (
        r"\b(?P<fine>(?i:there) (?:is|are|was|were)) no\b|\b(?:is|are|was|were) no "
        r"(?!longer\b|more\b|less\b|fewer\b|other\b|one\b|better\b|worse\b|\w+er than\b|\w+er\b)\w+",
        "is not a",
    ),
    (r"\b(?P<fine>(?i:there) (?:is|are|was|were)) none\b|\b(?:is|are) none\b", "is invalid; is not one of"),
    (r"\bno whole\b", "not a whole; truncated"),
    (r"(?i:colour)", "color"),
    (r"(?i:\bgrey)", "gray"),
    (r"(?i:behaviour|favour|neighbour|flavour|honour)", "American spelling: -or"),
    (r"(?i:\bcent(?:re|res|red)\b|\b(?:metre|litre|fibre|theatre)s?\b)", "American spelling: -er"),
    (
        r"(?i:(?:normal|optim|quant|recogn|initial|serial|neutral|organ|maxim|minim|general|special|real|util|symbol|"
        r"visual|synchron|summar|regular|parallel|final|token|vector|random|emphas|equal)is(?:e|es|ed|er|ers|ing|ation|ations)\b"
        r"|\banaly(?:se|sed|sing)\b)",
        "American spelling: -ize",
    ),
    (r"(?i:\b(?:labell|modell|travell|signall|channell|levell)(?:ed|ing)\b)", "American spelling: single l"),
    (r"(?i:\b(?:licence|artefact|learnt|whilst|programme)s?\b)", "American spelling"),
)
PATTERNS = tuple((re.compile(text.replace(" ", r"(?:\s|#|//)+")), advice) for text, advice in _PATTERNS)

#: (path, text of the line) of true uses: names of files and formats, quotations, other projects' identifiers
ALLOWED: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Finding:
    """A phrase to rewrite."""

    path: str
    line: int
    phrase: str
    advice: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.phrase}": {self.advice}'


def check_text(text: str, path: str) -> Iterator[Finding]:
    """Find the phrases of one file.

    Args:
        text: its content.
        path: relative to the project, with forward slashes.
    """
    lines = text.splitlines()
    allowed = [words for pattern, words in ALLOWED if fnmatch(path, pattern)]
    for pattern, advice in PATTERNS:
        for found in pattern.finditer(text):
            number = text.count("\n", 0, found.start()) + 1
            if found.groupdict().get("fine") or any(words in lines[number - 1] for words in allowed):
                continue
            yield Finding(path, number, re.sub(r"[\s#/]+", " ", found[0]), advice)


def list_files() -> list[Path]:
    """List the tracked files to check."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = (name for name in listed.split("\0") if name.endswith(SUFFIXES) and name not in EXCLUDED)
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def main(arguments: list[str]) -> int:
    """Check the given files or folders, or all tracked files; return 1 if there are findings."""
    chosen = [Path(argument).resolve() for argument in arguments]
    files = [path for path in list_files() if not chosen or any(path.is_relative_to(place) for place in chosen)]
    count = 0
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        for finding in sorted(check_text(path.read_text(encoding="utf-8"), name), key=lambda each: each.line):
            print(finding)
            count += 1
    print(f"{len(files)} files, {count} phrases to rewrite")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
