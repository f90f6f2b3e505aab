"""Repositories for Triton, and their Python steps outside of it; `test_triton_server.py` runs them in a real Triton."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from atrous import runtime
from atrous.errors import AtrousError, BackendError, BundleError, EngineError, InputError, OutputError
from atrous.runtime.export import TritonOptions, export_triton
from atrous.runtime.export.triton import _name_release as name_release
from atrous.runtime.export.triton_step import PREPARED, RAW, TritonStep
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.tiles.plan import ImagePlan, TilePlan, split_axis

from .. import bundles

MADE_FOR = {"size": [24, 40], "source": "option", "resize": True}


class Tensor:
    """A tensor as Triton's Python backend makes it."""

    def __init__(self, name: str, array: np.ndarray):
        self.name, self._array = name, array

    def as_numpy(self) -> np.ndarray:
        return self._array

    def to_dlpack(self) -> np.ndarray:
        return self._array

    @staticmethod
    def from_dlpack(name: str, array: np.ndarray) -> Tensor:
        return Tensor(name, array)


class EmptyTensor(Tensor):
    """A tensor that has lost its values."""

    def to_dlpack(self) -> np.ndarray:
        return np.zeros_like(self._array)


class TritonError:
    INVALID_ARG, INTERNAL = "INVALID_ARG", "INTERNAL"

    def __init__(self, text: str, code: str):
        self.text, self.code = text, code


class Response:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None):
        self.outputs = {tensor.name: tensor.as_numpy() for tensor in output_tensors or ()}
        self.error = error


class Request:
    def __init__(self, tensors: dict[str, np.ndarray], wanted: tuple[str, ...], parameters: dict[str, object]):
        self.tensors, self._wanted, self._parameters = tensors, wanted, parameters

    def requested_output_names(self) -> list[str]:
        return list(self._wanted)

    def parameters(self) -> str:
        return json.dumps(self._parameters) if self._parameters else ""


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The parts of Triton's module that the steps use."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor, module.TritonError, module.InferenceResponse = Tensor, TritonError, Response
    module.get_input_tensor_by_name = lambda request, name: Tensor(name, request.tensors[name])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def open_step(repository: Path, name: str, parameters: dict[str, str]) -> TritonStep:
    """A step as Triton opens it: its exported model.py, and the parameters of its configuration."""
    spec = importlib.util.spec_from_file_location("model", repository / name / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    step: TritonStep = module.TritonPythonModel()
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    step.initialize({"model_config": json.dumps(config)})
    return step


def run_network(repository: Path, name: str, image: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def read_parameters(config: str) -> dict[str, str]:
    """The parameters of a config.pbtxt of ours."""
    words = [line.strip() for line in config.partition("parameters {")[2].splitlines()]
    keys = [json.loads(word[5:]) for word in words if word.startswith("key: ")]
    values = [json.loads(word[14:]) for word in words if word.startswith("string_value: ")]
    return dict(zip(keys, values, strict=True))


def infer(repository: Path, image: np.ndarray, wanted: tuple[str, ...] = ("labels",), **parameters: object) -> Response:
    """Run a repository named "m" as its ensemble says: prepare if it is there, the network, finish."""
    whole = image[None]
    if (repository / "m-prepare").exists():
        prepare = open_step(
            repository, "m-prepare", read_parameters((repository / "m-prepare/config.pbtxt").read_text())
        )
        response: Response = prepare.execute([Request({"image": whole}, (f"{PREPARED}image",), {})])[0]
        if response.error is not None:
            return response
        whole = response.outputs[f"{PREPARED}image"]
    raw = {RAW + name: value for name, value in run_network(repository, "m-network", whole).items()}
    finish = open_step(repository, "m-finish", read_parameters((repository / "m-finish/config.pbtxt").read_text()))
    answer: Response = finish.execute([Request({"image": image[None], **raw}, wanted, parameters)])[0]
    return answer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write_bundle(tmp_path / "bundle", crf=bundles.CRF)


IMAGE = bundles.make_image(30, 41)


@pytest.mark.parametrize("head", ["scores", "lowres"])
@pytest.mark.parametrize("has_crf", [True, False])
@pytest.mark.parametrize("options", [{}, {"size": (24, 40)}, {"max_side": 20}])
def test_labels_are_those_of_a_direct_call(
    head: str, has_crf: bool, options: dict[str, Any], triton: ModuleType, tmp_path: Path
) -> None:
    source = bundles.write_bundle(tmp_path / "bundle", head, crf=bundles.CRF)
    export_triton(source, tmp_path / "repo", TritonOptions(name="m", crf=has_crf, **options))
    with runtime.load(source, threads=1, crf=has_crf, **options) as segmenter:
        expected = segmenter.segment(IMAGE, probabilities=True)
    answer = infer(tmp_path / "repo", IMAGE, ("labels", "labels_png", "probabilities"))
    assert answer.error is None
    assert np.array_equal(answer.outputs["labels"][0], expected.labels)
    assert np.array_equal(answer.outputs["probabilities"][0], expected.probabilities)
    png = answer.outputs["labels_png"]
    assert png.shape == (1, 1)
    (tmp_path / "labels.png").write_bytes(png[0, 0])
    from PIL import Image

    with Image.open(tmp_path / "labels.png") as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)


def test_labels_of_a_net_made_for_one_size(triton: ModuleType, tmp_path: Path) -> None:
    rules = bundles.make_manifest({})["preprocessing"]
    source = bundles.write_bundle(tmp_path / "bundle", "labels", preprocessing={**rules, "made_for": MADE_FOR})
    assert list(export_triton(source, tmp_path / "repo", TritonOptions(name="m"))) == [
        "m-prepare", "m-network", "m-finish", "m"
    ]  # fmt: skip
    with runtime.load(source) as segmenter:
        assert np.array_equal(infer(tmp_path / "repo", IMAGE).outputs["labels"][0], segmenter(IMAGE))
    assert "probabilities" not in (tmp_path / "repo/m/config.pbtxt").read_text()


def test_labels_of_any_size_need_no_python(tmp_path: Path) -> None:
    source = bundles.write_bundle(tmp_path / "bundle", "labels")
    assert export_triton(source, tmp_path / "repo") == {"four-colors": ("1/model.onnx", "config.pbtxt")}


@pytest.mark.parametrize("in_tiles", [False, True])
def test_parameters_of_a_request(
    bundle: Path, triton: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_tiles: bool
) -> None:
    if in_tiles:  # as for an image whose CRF does not fit the memory
        tiles = TilePlan(split_axis(30, 30, 0, 8, 8), split_axis(41, 41, 0, 8, 8), False, True, 8, 8, True)
        monkeypatch.setattr(Segmenter, "plan", lambda *size, **options: ImagePlan(1, 2, tiles, fits=True))
    export_triton(bundle, tmp_path / "repo", TritonOptions(name="m"))
    noisy = np.clip(IMAGE + np.random.default_rng(0).normal(0, 70, IMAGE.shape), 0, 255).astype(np.uint8)
    with runtime.load(bundle, crf=False) as segmenter:
        plain = segmenter(noisy)
    assert np.array_equal(infer(tmp_path / "repo", noisy, crf=False).outputs["labels"][0], plain)
    assert np.array_equal(infer(tmp_path / "repo", noisy, iterations=0).outputs["labels"][0], plain)
    assert not np.array_equal(infer(tmp_path / "repo", noisy).outputs["labels"][0], plain)
    error = infer(tmp_path / "repo", noisy, mode="fast").error
    assert error is not None
    assert (error.code, error.text[:6]) == ("INVALID_ARG", '"mode"')


def test_errors_of_one_request_leave_the_others(bundle: Path, triton: ModuleType, tmp_path: Path) -> None:
    export_triton(bundle, tmp_path / "repo", TritonOptions(name="m", size=(24, 40)))
    parameters = read_parameters((tmp_path / "repo/m-prepare/config.pbtxt").read_text())
    step = open_step(tmp_path / "repo", "m-prepare", parameters)
    good, empty = Request({"image": IMAGE[None]}, (), {}), Request({"image": IMAGE[None, :0]}, (), {})
    broken, two = Request({}, (), {}), Request({"image": np.stack([IMAGE, IMAGE])}, (), {})
    answers = step.execute([empty, broken, two, good])
    assert [answer.error and answer.error.code for answer in answers] == [
        "INVALID_ARG",
        "INTERNAL",
        "INVALID_ARG",
        None,
    ]
    assert "must hold one image" in answers[2].error.text


def test_lost_values_are_noticed_at_the_start(
    bundle: Path, triton: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_triton(bundle, tmp_path / "repo", TritonOptions(name="m"))
    triton.Tensor = EmptyTensor
    with pytest.raises(BackendError, match="numpy<2"):
        infer(tmp_path / "repo", IMAGE)


def test_a_missing_atrous_names_the_dockerfile(
    bundle: Path, triton: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_triton(bundle, tmp_path / "repo", TritonOptions(name="m"))
    monkeypatch.setitem(sys.modules, "atrous.runtime.export.triton_step", None)
    with pytest.raises(ImportError, match="Dockerfile"):
        infer(tmp_path / "repo", IMAGE)


def test_other_models_and_an_edited_dockerfile_stay(bundle: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    export_triton(bundle, repository, TritonOptions(name="first"))
    assert (repository / "Dockerfile").read_text().splitlines()[0].startswith("FROM nvcr.io/nvidia/tritonserver:")
    (repository / "Dockerfile").write_text("FROM mine\n")
    export_triton(bundle, repository, TritonOptions(name="second"))
    with pytest.raises(OutputError, match="--force"):
        export_triton(bundle, repository, TritonOptions(name="second"))
    (repository / "second-finish" / "1" / "old").touch()
    export_triton(bundle, repository, TritonOptions(name="second", instances=3), replace=True)
    assert "count: 3" in (repository / "second-finish" / "config.pbtxt").read_text()
    assert not (repository / "second-finish" / "1" / "old").exists()
    assert (repository / "Dockerfile").read_text() == "FROM mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "repo"]
    names = [f"{name}{part}" for name in ("first", "second") for part in ("", "-finish", "-network")]
    assert sorted(path.name for path in repository.iterdir()) == sorted([*names, "Dockerfile"])


def test_a_folder_that_is_no_model_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "repo" / "m-network").mkdir(parents=True)
    with pytest.raises(OutputError, match="not a model of Triton"):
        export_triton(bundle, tmp_path / "repo", TritonOptions(name="m"), replace=True)
    assert [path.name for path in (tmp_path / "repo").iterdir()] == ["m-network"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": "../x"}, InputError, "--name"),
        ({"name": ""}, None, ""),
        ({"instances": 0}, InputError, "instances must be 1 to"),
        ({"delay_us": -1}, InputError, "delay_us must be 0 to"),
        ({"size": (24, 40), "max_side": 20}, InputError, "exclude each other"),
        ({"precision": "fp16"}, BundleError, "atrous precision"),
        ({"network": "tensorrt"}, EngineError, "atrous build"),
    ],
)
def test_invalid_options(
    bundle: Path, tmp_path: Path, options: dict[str, Any], error: type[AtrousError] | None, words: str
) -> None:
    if error is None:
        assert "four-colors" in export_triton(bundle, tmp_path / "repo", TritonOptions(**options))
        return
    with pytest.raises(error, match=words):
        export_triton(bundle, tmp_path / "repo", TritonOptions(**options))
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("version", "requirement"), [("0.2.0", "atrous==0.2.0"), ("0.1.dev9+gabc", "atrous"), ("", "atrous")]
)
def test_the_image_installs_a_version_that_an_index_has(version: str, requirement: str) -> None:
    assert name_release(version) == requirement
