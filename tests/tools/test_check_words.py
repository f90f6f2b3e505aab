"""The word list finds planted phrases, also across lines, and ignores true uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_words
from tools.check_words import check_text, list_files, main


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ('"""What a file is."""', '"""What'),
        ('    """How a net is read.', '"""How'),
        ("which fork it is, is told by its fields", "told"),
        ("def tell_dialect(net):", "tell_dialect"),
        ("no machine was at\nhand", "at hand"),
        ("# every library at\n    # hand", "at hand"),
        ("a lane of so many slots", "so many"),
        ("nobody can know", "nobody"),
        ("whoever wrote the file", "whoever"),
        ("tried three times in vain", "in vain"),
        ("it gave up after a minute", "gave up"),
        ("if the CRF takes a point, it finds not one", "finds not"),
        ("the bytes are no message", "are no message"),
        ("it is no whole caffemodel", "no whole"),
        ("the method is none", "is none"),
        ("a list of Colours", "Colour"),
        ("in grey levels", "grey"),
        ("batch normalisation", "normalisation"),
        ("the optimiser", "optimiser"),
        ("the centre of a window", "centre"),
        ("30 images labelled", "labelled"),
        ("the Licence", "Licence"),
    ],
)
def test_planted(text: str, phrase: str) -> None:
    assert phrase.lower() in {finding.phrase.lower() for finding in check_text(text, "a.py")}


@pytest.mark.parametrize(
    "text",
    [
        "there is no such file",
        "There are no images",
        "# where there\n# is no device",
        "it is no longer in the bundle",
        "int8 is no faster than float32",
        "the winner is no worse",
        "of the paths, there are none",
        "position = file.tell()",
        "so many that memory ends",
        "a storyteller, forehand, upbringing",
        "precise, otherwise, exercise, noise, raise, size, promise",
        "parameter, diameter, symmetric, central, center, perimeter",
        "analysis, analyses",
        "What is read: text. How it is read: by lines.",
    ],
)
def test_not_a_finding(text: str) -> None:
    assert list(check_text(text, "a.py")) == []


def test_allowed_uses_are_ignored_in_their_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_words, "ALLOWED", (("runtime/evaluation/*", "Colours.txt"),))
    assert list(check_text("reads Colours.txt", "runtime/evaluation/datasets/voc.py")) == []
    assert len(list(check_text("reads Colours.txt", "runtime/images.py"))) == 1
    assert len(list(check_text("reads\nColours", "runtime/evaluation/voc.py"))) == 1


def test_a_finding_names_the_place_and_a_rewrite() -> None:
    (finding,) = check_text("one\ntwo at hand\n", "docs/a.md")
    assert str(finding) == 'docs/a.md:2: "at hand": available'


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(check_words.ROOT / "docs" / "stability.md")]) == 0
    assert capsys.readouterr().out == "1 files, 0 phrases to rewrite\n"


def test_its_own_files_are_left_out() -> None:
    files = list_files()
    assert check_words.ROOT / "README.md" in files
    assert not {Path(name) for name in check_words.EXCLUDED} & {path.relative_to(check_words.ROOT) for path in files}
