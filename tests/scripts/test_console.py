"""Printing of JSON, tables, progress and untrusted text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atrous.scripts import console


def test_json_of_paths_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json("x", {"path": Path("a/b"), "array": np.arange(2), "number": np.float32(0.5)})
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "command": "x",
        "path": "a/b",
        "array": [0, 1],
        "number": 0.5,
    }


def test_json_rejects_nan_and_unknown_objects() -> None:
    with pytest.raises(ValueError, match="JSON"):
        console.print_json("x", {"number": float("nan")})
    with pytest.raises(TypeError, match="object"):
        console.print_json("x", {"thing": object()})


def test_table_keeps_brackets_and_long_cells(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(("name", "count"), [("[bold]x[/bold] :smile:", 5), ("y" * 150, 70)])
    out = capsys.readouterr().out
    assert "[bold]x[/bold] :smile:" in out
    assert "y" * 150 in out
    assert len(out.splitlines()) == 3


def test_no_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.show_progress("working", 2) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_hostile_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[31m\nforged"
    console.print_table((hostile,), [(hostile,)], title=hostile)
    console.print_line(hostile)
    console.print_warning(hostile)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "\x1b" not in text
        assert not any(line.startswith("forged") for line in text.splitlines())
    assert "a\\x1b[31m\\nforged" in out


def test_a_wide_table_becomes_a_list_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PIPE_WIDTH", 40)
    rows = [("conv1_1", "1x64x513x513", "x" * 30), ("pool", None, "")]
    console.print_table(("layer", "shape", ""), rows, title="net")
    assert capsys.readouterr().out.splitlines() == [
        *("net", "conv1_1", "  shape: 1x64x513x513", "  " + "x" * 30, "pool"),
    ]
    console.print_table(("layer", "n"), [("conv1_1", 3)])
    assert capsys.readouterr().out.splitlines()[0].split() == ["layer", "n"]
