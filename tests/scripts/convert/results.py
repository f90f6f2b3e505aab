"""The results of `atrous convert` in the working folder."""

from __future__ import annotations

from pathlib import Path

from atrous.bundle.manifest import Manifest, parse_manifest

MEAN = ("--mean", "104.008,116.669,122.675")


def manifest(folder: str = "b") -> Manifest:
    return parse_manifest((Path(folder) / "manifest.json").read_bytes())


def assert_one_line(outcome: tuple[int, str, str], *words: str, code: int = 2) -> None:
    found, out, err = outcome
    assert found == code, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not Path("b").exists()
