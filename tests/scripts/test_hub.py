"""`card`, `push` and `fetch hf:...` as commands; the transfer itself is tested in tests/runtime/hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atrous.bundle import read_bundle
from atrous.runtime.hub import transfer
from atrous.scripts.main import main

from ..runtime.bundles import write_bundle


def test_card_is_written_into_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "b")
    assert main(["card", str(bundle), "--license", "mit"]) == 0
    assert (bundle / "README.md").read_text(encoding="utf-8").startswith('---\nlicense: "mit"\n')
    capsys.readouterr()
    assert main(["card", str(bundle), "-o", str(tmp_path / "card.md"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"] == str(tmp_path / "card.md")
    assert main(["card", str(tmp_path / "none")]) == 2


def test_push_and_fetch_call_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path / "b")
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        transfer, "push_bundle", lambda bundle, to, card, private: sent.append((to, private, card)) or "https://commit"
    )
    assert main(["push", str(bundle), "hf:lab/net", "--private", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == "https://commit"
    assert sent[0][:2] == (transfer.HubName("lab/net"), True)
    assert "hf:lab/net" in str(sent[0][2])
    monkeypatch.setattr(transfer, "fetch_bundle", lambda source, folder, everything, replace: read_bundle(bundle))
    assert main(["fetch", "hf:lab/net@v1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["name"], report["folder"], report["files"]) == ("hf:lab/net@v1", "net", ["deploy.onnx"])


@pytest.mark.parametrize(
    "words", [["fetch", "hf:lab"], ["fetch", "hf:a/b", "--show"], ["fetch", "x", "--all"], ["push", "{b}", "lab/net"]]
)
def test_usage(words: list[str], tmp_path: Path) -> None:
    bundle = str(write_bundle(tmp_path / "b"))
    assert main([word.format(b=bundle) for word in words]) == 2
