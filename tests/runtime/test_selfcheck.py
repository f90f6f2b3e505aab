"""The self checks pass on this machine, and fail on wrong results."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from atrous.runtime import devices, selfcheck
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend


def test_model_is_the_dilated_convolution() -> None:
    model = onnx.load_from_string(selfcheck.DILATED_CONVOLUTION)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert node.op_type == "Conv"
    assert {a.name: list(a.ints) for a in node.attribute} == {"dilations": [2, 2]}
    weights = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(weights, np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3))


def test_onnxruntime() -> None:
    assert selfcheck.check_onnxruntime()


@pytest.mark.parametrize(
    "wrong", [np.full((1, 1, 1, 1), 731.0), np.full((1, 1, 3, 3), 732.0), np.full((1, 1, 1, 1), np.nan)]
)
def test_onnxruntime_that_computes_wrong(monkeypatch: pytest.MonkeyPatch, wrong: np.ndarray) -> None:
    monkeypatch.setattr(OnnxRuntimeBackend, "run", lambda *_: {"y": wrong})
    with pytest.raises(selfcheck.SelfCheckError, match="where 732"):
        selfcheck.check_onnxruntime()


def test_crf() -> None:
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    assert selfcheck.check_crf()


def test_crf_that_computes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    crf = pytest.importorskip("atrous.runtime.crf")

    def idle(image: Any, probabilities: Any, **_: Any) -> Any:
        return probabilities

    monkeypatch.setattr(crf, "dense_crf", idle)
    with pytest.raises(selfcheck.SelfCheckError, match="is correct"):
        selfcheck.check_crf()


def test_devices() -> None:
    processor = devices.describe_processor()
    assert processor.name
    assert 1 <= processor.usable_cores <= processor.cores
    for device in devices.list_cuda_devices():
        assert device.memory_bytes > 0


class StubDriver:
    """NVIDIA's driver interface with one GPU in it."""

    def __init__(self, code: int = 0):
        self.code = code

    def cuInit(self, flags: int) -> int:  # noqa: N802 (the driver's own names, here and below)
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = 40 + index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = f"GPU {device.value}".encode()[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, memory_bytes: Any, device: Any) -> int:  # noqa: N802
        memory_bytes._obj.value = 80 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0


def test_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_open_driver", StubDriver)
    assert devices.list_cuda_devices() == (devices.CudaDevice("GPU 40", "9.0", 80 << 30),)
    monkeypatch.setattr(devices, "_open_driver", lambda: StubDriver(100))  # CUDA_ERROR_NO_DEVICE
    assert devices.list_cuda_devices() == ()
    monkeypatch.setattr(devices, "_open_driver", lambda: None)
    assert devices.list_cuda_devices() == ()
