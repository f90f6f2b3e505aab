"""The check of a repository against Triton's own schema, with one fault at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed (make triton-check has it)")

from atrous.errors import InputError
from atrous.runtime.export import TritonOptions, export_triton
from atrous.runtime.export.triton_check import check_repository
from atrous.scripts.main import main

from .. import bundles

MADE_FOR = {"size": [24, 40], "source": "option", "resize": True}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with all three steps."""
    rules = bundles.make_manifest({})["preprocessing"]
    source = bundles.write_bundle(tmp_path / "b", preprocessing={**rules, "made_for": MADE_FOR}, crf=bundles.CRF)
    export_triton(source, tmp_path / "repo", TritonOptions(name="m"))
    return tmp_path / "repo"


@pytest.mark.parametrize("head", ["scores", "lowres", "labels"])
def test_what_we_write_is_right(head: str, repository: Path, tmp_path: Path) -> None:
    export_triton(bundles.write_bundle(tmp_path / head, head), repository, TritonOptions(name=head))
    assert check_repository(repository) == []


@pytest.mark.parametrize(
    ("model", "old", "new", "line", "words"),
    [
        ("m", 'platform: "ensemble"', 'platfrom: "ensemble"', 'platfrom', 'no field named "platfrom"'),
        ("m-finish", "TYPE_UINT8", "TYPE_UINT9", "TYPE_UINT9", 'no value named TYPE_UINT9'),
        ("m-finish", "count: 4", 'count: "4"', 'count: "4"', "Couldn't parse integer"),
        ("m", 'name: "m"', 'name: "n"', 'name: "n"', "is not the folder's"),
        ("m", 'model_name: "m-finish"', 'model_name: "m-finnish"', '"m-finnish"', 'no model "m-finnish"'),
        ("m", 'key: "raw_scores"', 'key: "scores"', '"scores"', 'has no input "scores"; it has image, raw_scores'),
        ("m", 'value: "prepared_image"', 'value: "p"', 'value: "prepared_image"', "nothing before"),
        ("m-network", 'name: "scores"', 'name: "lowres"', '"lowres"', 'model.onnx has no "lowres"; it has scores'),
        ("m-network", "dims: [4, -1, -1]", "dims: [5, -1, -1]", '"scores"', "in model.onnx tensor(float) [-1, 4"),
        ("m-network", "max_batch_size: 8", "max_batch_size: 0", '"image"', "in model.onnx"),
        ("m-finish", "dims: [4, -1, -1]", "dims: [5, -1, -1]", '"raw_scores"', "given as [-1, 4, -1, -1] and taken as"),
    ],
)  # fmt: skip
def test_faults_have_lines(repository: Path, model: str, old: str, new: str, line: str, words: str) -> None:
    config = repository / model / "config.pbtxt"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    faults = check_repository(repository)
    matching = [fault for fault in faults if words in fault.text]
    assert matching, faults
    fault = matching[0]
    assert fault.line is not None
    assert line in fault.path.read_text().splitlines()[fault.line - 1]
    assert str(fault).startswith(f"{fault.path}:{fault.line}: ")


def test_a_missing_version_and_an_empty_folder(repository: Path, tmp_path: Path) -> None:
    (repository / "m" / "1" / ".keep").unlink()
    (repository / "m" / "1").rmdir()
    assert [fault.text for fault in check_repository(repository)] == ['has no version: make a folder "1" beside it']
    with pytest.raises(InputError, match="has no model"):
        check_repository(tmp_path / "nothing")


def test_command(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "check-triton", str(repository)]) == 0
    assert capsys.readouterr().out.strip() == f"{repository}: no faults"
    config = repository / "m-finish" / "config.pbtxt"
    config.write_text(config.read_text() + "nothing: 1\n")
    assert main(["export", "check-triton", str(repository), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["faults"][0]["path"] == str(config)
    assert printed["faults"][0]["line"] == len(config.read_text().splitlines())
