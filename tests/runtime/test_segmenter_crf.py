"""A segmenter with the dense CRF; the CRF's own numbers are tested in its own folder."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atrous import runtime
from atrous.errors import InputError, MissingDependencyError
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.tiles.plan import ImagePlan, TilePlan, split_axis
from atrous.runtime.upsampling import softmax

from .bundles import CRF, FixedBackend, expected_scores, make_image, make_manifest, write_bundle


@pytest.mark.parametrize("size", [(17, 17), (25, 33), (41, 17), (20, 30), (26, 33), (1, 1)])
def test_upsampling_inside_the_crf(tmp_path: Path, size: tuple[int, int]) -> None:
    """The CRF upsamples a lowres head itself, padded or not, to the same marginals."""
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    image = make_image(*size)
    with runtime.load(write_bundle(tmp_path, "lowres", crf=CRF)) as segmenter:
        raw = segmenter.run_network(segmenter.prepare(image))
        outside = segmenter.refine(image, segmenter.to_probabilities(segmenter.complete_scores(raw, size)))
        result = segmenter.segment(image, probabilities=True)
        assert "scores" not in result.timings_ms  # upsampled inside the CRF
        assert result.probabilities is not None
        np.testing.assert_allclose(result.probabilities, outside, atol=1e-5)
        np.testing.assert_array_equal(result.labels, outside.argmax(0))
        frame = segmenter.finish(image, raw, probabilities=True, run_crf=runtime.crf.FrameCrf(segmenter.crf))
        np.testing.assert_array_equal(frame.probabilities, result.probabilities)
        refiner = segmenter.make_refiner(image, raw)
        np.testing.assert_array_equal(refiner(segmenter.crf), result.probabilities)


@pytest.mark.parametrize("reason", ["half-pixel centers", "probabilities", "resized"])
def test_upsampling_before_the_crf(tmp_path: Path, reason: str) -> None:
    """The CRF gets probabilities where its own upsampling would differ."""
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    folder = write_bundle(tmp_path, "lowres", crf=CRF)
    manifest = json.loads((folder / "manifest.json").read_text())
    if reason == "half-pixel centers":
        manifest["deploy"]["upsampling"]["align_corners"] = False
    if reason == "probabilities":
        manifest["deploy"]["scores_are"] = "probabilities"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    raw = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4)).transpose(2, 0, 1).astype(np.float32)
    image = make_image(17, 25)
    with runtime.load(folder, size=(17, 25) if reason != "resized" else (18, 25)) as segmenter:
        if reason == "resized":
            raw = np.concatenate([raw, raw[:, -1:]], axis=1)  # of the rows 18 to 25
        given = segmenter.to_probabilities(segmenter.complete_scores(raw, (17, 25)))
        result = segmenter.finish(image, raw, probabilities=True)
        np.testing.assert_array_equal(result.probabilities, segmenter.refine(image, given))
        assert "scores" in result.timings_ms


@pytest.mark.parametrize("tiles", ["none", "CRF", "scores"])
def test_a_token_stops_the_crf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: str) -> None:
    """A token that was cancelled before leaves one update, with the CRF in tiles or on the whole image."""
    crf = pytest.importorskip("atrous.runtime.crf", reason="the CRF extension is not compiled")
    image, token = make_image(25, 33), crf.CancelToken()
    token.cancel()
    spans = split_axis(25, 25, 0, 8, 8), split_axis(33, 33, 0, 8, 8)
    plan = None if tiles == "none" else TilePlan(*spans, False, tiles == "CRF", 8, 8, True)
    monkeypatch.setattr(Segmenter, "plan", lambda *given, **options: ImagePlan(1, 2, plan, fits=True))
    with runtime.load(write_bundle(tmp_path, crf=CRF)) as segmenter:
        assert segmenter.crf is not None
        one = segmenter.derive(crf=replace(segmenter.crf, iterations=1), sizing=segmenter.sizing)
        raw = segmenter.run_network(segmenter.prepare(image))
        stopped = segmenter.finish(image, raw, probabilities=True, token=token).probabilities
        np.testing.assert_array_equal(stopped, one.finish(image, raw, probabilities=True).probabilities)
        assert np.abs(stopped - segmenter.finish(image, raw, probabilities=True).probabilities).max() > 1e-5


@pytest.mark.parametrize("head", ["scores", "lowres"])
def test_crf_shortcuts(tmp_path: Path, head: str) -> None:
    """Shortcuts reach `dense_crf`, and are off by default."""
    crf = pytest.importorskip("atrous.runtime.crf", reason="the CRF extension is not compiled")
    image = make_image(25, 33)
    folder = write_bundle(tmp_path, head, crf=CRF)
    with runtime.load(folder) as exact, runtime.load(folder, crf_shortcuts={"reduce": 2}) as reduced:
        raw = exact.run_network(exact.prepare(image))
        unary = {"scores": raw} if head == "lowres" else {"probabilities": softmax(raw)}
        expected = crf.dense_crf(image, **unary, parameters=exact.crf, reduce=2)
        np.testing.assert_array_equal(reduced.probabilities(image), expected)
        assert np.abs(exact.probabilities(image) - expected).max() > 1e-3
        assert exact.crf_shortcuts == {}


def test_crf_that_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("atrous.runtime.crf")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "atrous.runtime.crf._lattice", None)
    folder = write_bundle(tmp_path, crf=CRF)
    with pytest.raises(MissingDependencyError, match=r"pip install \.") as caught:
        runtime.load(folder)
    assert caught.value.exit_code == 3
    assert runtime.load(folder, crf=False)(make_image(4, 4)).shape == (4, 4)


class TestCrf:
    """With the dense CRF; the CRF's own numbers are tested in its own folder."""

    @pytest.fixture(autouse=True)
    def needs_extension(self) -> None:
        pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")

    def test_refines_by_the_bundles_parameters(self, tmp_path: Path) -> None:
        image = make_image(40, 50)
        segmenter = runtime.load(write_bundle(tmp_path, crf=CRF))
        result = segmenter.segment(image, probabilities=True)
        parameters = runtime.crf.CrfParameters(
            mode="deeplab",
            iterations=5,
            gaussian=(runtime.crf.GaussianTerm(3.0, 3.0),),
            bilateral=(runtime.crf.BilateralTerm(20.0, 10.0, 4.0),),
        )
        assert segmenter.crf == parameters
        expected = runtime.crf.dense_crf(image, softmax(expected_scores(image)), parameters=parameters)
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
        np.testing.assert_array_equal(result.labels, expected.argmax(0))
        assert list(result.timings_ms) == ["prepare", "network", "scores", "crf", "labels"]
        np.testing.assert_allclose(segmenter.scores(image), expected_scores(image), atol=1e-4)  # still raw

    @pytest.mark.parametrize(
        ("recording", "mode", "tolerance"),
        [("deeplab-program-voc-21", "deeplab", 5e-5), ("voc-21-symmetric", "pydensecrf", 1e-5)],
    )
    def test_equals_the_reference_programs(
        self, tmp_path: Path, shared_dir: Path, recording: str, mode: str, tolerance: float
    ) -> None:
        """A network that returns the recorded probabilities gives the recorded marginals."""
        recorded = np.load(shared_dir / "crf" / f"{recording}.npz")
        case = json.loads(str(recorded["case"]))
        terms = {
            kind: [
                {"sxy": term["sxy"], "weight": term["compat"], **({"srgb": term["srgb"]} if "srgb" in term else {})}
                for term in case["terms"]
                if term["kind"] == kind
            ]
            for kind in ("gaussian", "bilateral")
        }
        count = recorded["probabilities"].shape[0]
        folder = write_bundle(
            tmp_path,
            crf={"mode": mode, "iterations": case["iterations"], **terms},
            classes=[f"class {index}" for index in range(count)],
            palette=[],
            deploy={**make_manifest({"deploy.onnx": b""})["deploy"], "scores_are": "probabilities"},
        )
        network = FixedBackend("scores", recorded["probabilities"].astype(np.float32)[None])
        result = runtime.load(folder, network).segment(recorded["image"], probabilities=True)
        np.testing.assert_allclose(result.probabilities, recorded["marginals"], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(result.labels, recorded["marginals"].argmax(0))

    def test_smooths(self, tmp_path: Path) -> None:
        """A single outlier in a flat region gets its neighbors' label."""
        image = np.full((20, 20, 3), 10, np.uint8)
        image[10, 10] = (90, 110, 120)
        folder = write_bundle(tmp_path, crf={**CRF, "bilateral": []})
        raw, smooth = (runtime.load(folder, crf=crf)(image)[10, 10] for crf in (False, True))
        assert (raw, smooth) == (expected_scores(image)[:, 10, 10].argmax(), 0)
        assert raw != smooth

    def test_parameters_of_the_users(self, tmp_path: Path) -> None:
        folder, image = write_bundle(tmp_path, crf=CRF), make_image(20, 20)
        idle = runtime.crf.CrfParameters(
            mode="deeplab", iterations=1, gaussian=(runtime.crf.GaussianTerm(3.0, 0.0),), bilateral=()
        )
        expected = softmax(expected_scores(image))
        found = runtime.load(folder, crf=idle).probabilities(image)
        np.testing.assert_allclose(found, np.clip(expected, 1e-5, 1), atol=1e-4)  # a term of weight 0 has no effect

    def test_strided_image(self, tmp_path: Path) -> None:
        segmenter = runtime.load(write_bundle(tmp_path, crf=CRF))
        view = make_image(30, 40)[::-1, ::2]
        np.testing.assert_array_equal(segmenter(view), segmenter(view.copy()))

    def test_not_on_a_labels_head(self, tmp_path: Path) -> None:
        folder = write_bundle(tmp_path, "labels", crf=CRF)
        assert runtime.load(folder).crf is None
        with pytest.raises(InputError, match="CRF need scores"):
            runtime.load(folder, crf=True)
