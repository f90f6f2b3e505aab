"""ONNX Runtime: correct numbers, no silent change of provider, hostile models refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from atrous.errors import BackendError
from atrous.runtime.backends import onnxruntime as module
from atrous.runtime.backends import onnxruntime_providers
from atrous.runtime.backends.onnxruntime import GraphLevel, OnnxRuntimeBackend, OnnxRuntimeOptions

from ..bundles import expected_scores, make_image, make_model, make_outside_model
from .test_self_contained import PLACES


def test_scores() -> None:
    image = make_image(5, 6)
    backend = OnnxRuntimeBackend(make_model(), threads=2)
    np.testing.assert_allclose(backend.run({"image": image[None]})["scores"][0], expected_scores(image), atol=1e-4)


@pytest.mark.parametrize("model", [b"", b"text", make_model()[:-40]])
def test_not_a_model(model: bytes) -> None:
    with pytest.raises(BackendError, match=r"b/deploy\.onnx: (ONNX Runtime refuses|the model is)") as caught:
        OnnxRuntimeBackend(model, path=Path("b/deploy.onnx"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [b"image", b"scores", b"height"])
def test_a_name_that_is_not_utf8(name: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    model = make_model().replace(name, name[:-2] + b"\xff\xfe")
    with pytest.raises(BackendError, match=r"^b/deploy\.onnx: ") as caught:
        OnnxRuntimeBackend(model, path=Path("b/deploy.onnx"))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""  # ONNX Runtime printed "EP Error"


LOCATIONS = ["secret", "./secret", "../../../etc/passwd", "/etc/passwd", "/proc/self/environ", "/dev/stdin",
             "file:///etc/passwd", "https://example.com/w", "*/_ORT_MEM_ADDR_/*", ""]  # fmt: skip


def refuse_library(name: str) -> Any:
    raise AssertionError(f"{name} was imported before the model was checked")


@pytest.mark.parametrize("location", LOCATIONS)
def test_weights_in_another_file(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "import_optional", refuse_library)
    with pytest.raises(BackendError, match=r"^b/deploy\.onnx: the model takes weights from other files"):
        OnnxRuntimeBackend(make_outside_model(location), path=Path("b/deploy.onnx"))


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__)
def test_tensors_in_another_file(put: Callable[[onnx.ModelProto], None], monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.ModelProto.FromString(make_model())
    put(model)
    monkeypatch.setattr(module, "import_optional", refuse_library)
    with pytest.raises(BackendError, match="the model takes weights from other files"):
        OnnxRuntimeBackend(model.SerializeToString())


@pytest.mark.parametrize("level", get_args(GraphLevel))
def test_options_change_no_numbers(level: GraphLevel) -> None:
    image = make_image(5, 6)
    options = OnnxRuntimeOptions(graph_level=level, spinning=False, io_binding=True)
    backend = OnnxRuntimeBackend(make_model(), threads=1, options=options)
    np.testing.assert_allclose(backend.run({"image": image[None]})["scores"][0], expected_scores(image), atol=1e-4)


def test_threads_rest_between_runs() -> None:
    image = make_image(1024, 1024)
    backend = OnnxRuntimeBackend(make_model(), threads=2)
    backend.run({"image": image[None]})
    before = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before < 0.015  # spinning would take 0.04 s of a core


def make_runtime(available: list[str], started: list[str]) -> Any:
    """A stub of the library that starts the providers `started`, whichever are requested."""
    session = SimpleNamespace(
        get_providers=lambda: started, disable_fallback=lambda: None, get_inputs=list, get_outputs=list
    )
    return SimpleNamespace(
        get_available_providers=lambda: available,
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda *_: None),
        GraphOptimizationLevel=SimpleNamespace(ORT_ENABLE_ALL=99),
        InferenceSession=lambda *_, **__: session,
    )


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (["onnxruntime"], r'has CPU\w+\): pip uninstall -y onnxruntime && pip install "atrous\[gpu\]"$'),
        (
            ["onnxruntime", "onnxruntime-gpu"],
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other.*uninstall -y onnxruntime "
            "onnxruntime-gpu &&",
        ),
    ],
)
def test_provider_not_there(monkeypatch: pytest.MonkeyPatch, installed: list[str], words: str) -> None:
    monkeypatch.setattr(module, "import_optional", lambda _: make_runtime(["CPUExecutionProvider"], []))
    monkeypatch.setattr(onnxruntime_providers, "read_version", lambda name: "1" if name in installed else None)
    with pytest.raises(BackendError, match=f"no CUDAExecutionProvider.*{words}"):
        OnnxRuntimeBackend(make_model(), device="cuda")


def test_provider_that_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make_runtime(["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"])
    monkeypatch.setattr(module, "import_optional", lambda _: runtime)
    with pytest.raises(BackendError, match="asked for CUDAExecutionProvider, ONNX Runtime started CPU"):
        OnnxRuntimeBackend(make_model(), device="cuda")


def test_tensorrt_provider_falls_back_to_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    options = OnnxRuntimeOptions(provider="tensorrt")
    monkeypatch.setattr(module, "import_optional", lambda _: make_runtime(both, [*both, "CPUExecutionProvider"]))
    OnnxRuntimeBackend(make_model(), device="cuda", options=options)
    monkeypatch.setattr(module, "import_optional", lambda _: make_runtime(both, both[1:]))
    with pytest.raises(BackendError, match=r"asked for TensorrtExecutionProvider and CUDA.*started CUDA"):
        OnnxRuntimeBackend(make_model(), device="cuda", options=options)


def test_provider_of_another_device() -> None:
    with pytest.raises(BackendError, match='"tensorrt" runs on the device "cuda", not on "cpu"'):
        OnnxRuntimeBackend(make_model(), options=OnnxRuntimeOptions(provider="tensorrt"))


def test_failure_while_running() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])
    shape = helper.make_tensor("s", TensorProto.INT64, [1], [3])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    backend = OnnxRuntimeBackend(model.SerializeToString())
    assert backend.run({"x": np.zeros(3, np.float32)})["y"].shape == (3,)
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        backend.run({"x": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("features", "exact"),
    [(("avx2", "avx512f"), "1"), (("avx2", "avx_vnni"), None), (("avx512f", "avx512_vnni"), None), ((), "1")],
)
def test_integer_products_are_exact_without_vnni(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], exact: str | None
) -> None:
    """With VNNI they always are, and ONNX Runtime's option only costs time."""
    monkeypatch.setattr(module, "describe_processor", lambda: SimpleNamespace(features=features))
    settings = module.make_settings(onnxruntime)
    try:
        found = settings.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # no such entry
        found = None
    assert found == exact
