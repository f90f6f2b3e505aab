"""The model card: metadata that the Hub's library reads, the manifest's facts, and results of the same bundle only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atrous.bundle import read_bundle
from atrous.errors import InputError
from atrous.runtime.benchmark.result_file import read_result
from atrous.runtime.hub.card import write_card

from ..bundles import CRF, write_bundle

SAMPLE = Path(__file__).parents[1] / "benchmark" / "sample-version-1.json"


def test_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    card = hub.ModelCard(
        write_card(read_bundle(write_bundle(tmp_path / "b", crf=CRF)), license="cc-by-4.0", repository="lab/net")
    )
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "atrous"
    assert card.data.pipeline_tag == "image-segmentation"
    assert set(card.data.tags) == {"caffe", "onnx", "dense-crf"}
    assert "atrous fetch hf:lab/net -o net\natrous segment net photo.jpg" in card.text


def test_facts_are_the_manifests(tmp_path: Path) -> None:
    bundle = read_bundle(write_bundle(tmp_path / "b", crf=CRF))
    text = write_card(bundle, license="other")
    manifest = bundle.manifest
    assert "# four-colors\n" in text
    assert "mean 104.008, 116.669, 122.675" in text
    assert "0 background, 1 blue, 2 green, 3 red" in text
    assert "| position and color | 20.0 | 10.0 | 4.0 |" in text
    assert all(source.sha256 in text for source in manifest.sources)
    assert "| model.onnx | torch | 1 | 0 | 0.0001 | yes |" in text


def test_results_of_the_bundle_and_of_another(tmp_path: Path) -> None:
    bundle = read_bundle(write_bundle(tmp_path / "b", crf=CRF))
    named = read_bundle(write_bundle(tmp_path / "c", name="deeplab-miniature"))
    benchmark = read_result(SAMPLE)
    text = write_card(named, license="other", benchmark=benchmark)
    assert "## Speed" in text
    assert text.count("| onnxruntime | fp32 |") == 1
    with pytest.raises(InputError, match='no stage times of the bundle "four-colors"'):
        write_card(bundle, license="other", benchmark=benchmark)
    evaluation = tmp_path / "evaluation.json"
    figures = {"mean_iou": 0.75, "pixel_accuracy": 0.9}
    content = {"bundle": "four-colors", "dataset": {"title": "VOC"}, "evaluated": 9, "variants": {"crf": figures}}
    evaluation.write_text(json.dumps(content))
    assert "VOC, 9 images." in write_card(bundle, license="other", evaluation=evaluation)
    assert "| crf | 75.00% | 90.00% |" in write_card(bundle, license="other", evaluation=evaluation)
    with pytest.raises(InputError, match='"four-colors", not "deeplab-miniature"'):
        write_card(named, license="other", evaluation=evaluation)
    evaluation.write_text("[]")
    with pytest.raises(InputError, match=r"evaluation\.json: is not"):
        write_card(bundle, license="other", evaluation=evaluation)
