"""The installed TensorRT, if any: it has the recorded names, and all names that plans use."""

from __future__ import annotations

from typing import Any

import pytest

from atrous.runtime.backends.tensorrt import compat
from atrous.runtime.backends.tensorrt.capabilities import LINES, read_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build

from . import record_names, stubs
from .onnx_models import find_facts, make_graph


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt", reason="TensorRT is not installed", exc_type=ImportError)


def test_capabilities(trt: Any) -> None:
    found = read_capabilities(trt)
    assert found.typing == LINES[found.line].typing


def test_recorded_names(trt: Any) -> None:
    recorded = stubs.read_names().get(trt.__version__)
    if recorded is None:
        pytest.skip(f"the names of TensorRT {trt.__version__} are not recorded")
    found = record_names.read_module_names(trt)
    assert {kind: set(words.split()) for kind, words in found.items()} == {k: set(v) for k, v in recorded.items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_member_of_a_plan_is_there(trt: Any, precision: str) -> None:
    facts = find_facts(make_graph(precision))
    options = BuildOptions(
        (static_profile({"data": (1, 3, 33, 33)}),), workspace_bytes=1 << 20, refit=True, replay=True
    )
    for path in plan_build(options, read_capabilities(trt), facts).record().members:
        kind, _, name = path.removeprefix("trt.").partition(".")
        assert int(getattr(getattr(trt, kind), name)) >= 0


def test_listeners_are_taken_for_its_own(trt: Any) -> None:
    lines: list[str] = []
    assert isinstance(compat.make_logger(trt, lines), trt.ILogger)
    if read_capabilities(trt).progress_monitor:
        assert isinstance(compat.make_progress_monitor(trt, lambda phase, step, steps: None), trt.IProgressMonitor)


def test_types_have_the_sizes_that_numpy_gives_them(trt: Any) -> None:
    import numpy as np

    for name, numpy_name in compat.NUMPY_NAMES.items():
        member = getattr(trt.DataType, name, None)
        if member is not None:
            assert np.dtype(compat.numpy_name(member)).itemsize == np.dtype(numpy_name).itemsize == member.itemsize
