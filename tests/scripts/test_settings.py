"""Defaults of options: the command line before `ATROUS_*` variables before `config.ini`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from atrous.runtime.backends.tensorrt.store import find_runtime_cache
from atrous.scripts import console
from atrous.scripts.main import COMMANDS

from .running import run_with


class TestSettings:
    @pytest.fixture(autouse=True)
    def command_that_shows_its_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @click.command()
        @click.option("--threads", type=click.IntRange(1))
        @click.option("--max-side", type=int)
        @console.json_option
        def command(threads: int | None, max_side: int | None, as_json: bool) -> None:
            click.echo(f"{threads} {max_side}")

        module = ModuleType("atrous.scripts.show")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "atrous.scripts.show", module)
        monkeypatch.setitem(COMMANDS, "show", "Show.")
        monkeypatch.setenv("ATROUS_CONFIG", "")

    def test_order(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert run_with(capsys, "show")[1] == "None None\n"
        (tmp_path / "config.ini").write_text("[atrous]\nthreads = 2\n[show]\nmax-side = 640\n")
        monkeypatch.setenv("ATROUS_CONFIG", str(tmp_path / "config.ini"))
        assert run_with(capsys, "show")[1] == "2 640\n"
        monkeypatch.setenv("ATROUS_THREADS", "3")
        assert run_with(capsys, "show")[1] == "3 640\n"
        monkeypatch.setenv("ATROUS_SHOW_THREADS", "4")
        assert run_with(capsys, "show")[1] == "4 640\n"
        assert run_with(capsys, "show", "--threads", "5", "--max-side", "6")[1] == "5 6\n"

    def test_the_file_in_its_usual_place(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("ATROUS_CONFIG")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        (tmp_path / "atrous").mkdir()
        (tmp_path / "atrous" / "config.ini").write_text("[show]\nthreads = 7\n")
        assert run_with(capsys, "show")[1] == "7 None\n"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("[atrous]\nthread = 2\n", '[atrous] has no setting "thread"; it has threads, backend, device, cache'),
            ("[show]\nthread = 2\n", '[show] has no option "thread"'),
            ("[show]\nthreads = many\n", "many"),
            ("threads = 2\n", "cannot be read"),
        ],
    )
    def test_mistakes_are_one_line(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        content: str,
        words: str,
    ) -> None:
        (tmp_path / "config.ini").write_text(content)
        monkeypatch.setenv("ATROUS_CONFIG", str(tmp_path / "config.ini"))
        code, out, err = run_with(capsys, "show")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
        monkeypatch.setenv("ATROUS_CONFIG", str(tmp_path / "none.ini"))
        assert "there is no such file" in run_with(capsys, "show")[2]

    def test_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("ATROUS_CACHE", str(tmp_path))
        assert find_runtime_cache("0" * 64).is_relative_to(tmp_path)
