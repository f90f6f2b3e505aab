"""The installed TensorRT, if any: it has the recorded names, and all names that plans use."""

from __future__ import annotations

from typing import Any

import pytest

from atrous.runtime.backends.tensorrt import compat
from atrous.runtime.backends.tensorrt.capabilities import find_capabilities, read_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build
from tools.gpu_bench.fake_engine import FakeContext, FakeEngine

from . import record_names, stubs
from .onnx_models import find_facts, make_graph
from .test_builder import build
from .test_capabilities import compare


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt", reason="TensorRT is not installed", exc_type=ImportError)


@pytest.fixture(scope="module")
def names(trt: Any) -> dict[str, tuple[str, ...]]:
    """Class -> its public names."""
    return {kind: tuple(words.split()) for kind, words in record_names.read_module_names(trt).items()}


def test_capabilities(trt: Any, names: dict[str, tuple[str, ...]]) -> None:
    found = read_capabilities(trt)
    assert found == find_capabilities(trt.__version__)
    compare(trt.__version__, names)


def test_recorded_names(trt: Any, names: dict[str, tuple[str, ...]]) -> None:
    recorded = stubs.read_names().get(trt.__version__)
    if recorded is None:
        pytest.skip(f"the names of TensorRT {trt.__version__} are not recorded")
    assert {kind: set(words) for kind, words in names.items()} == {kind: set(words) for kind, words in recorded.items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_build_uses_names_that_are_there(trt: Any, names: dict[str, tuple[str, ...]], precision: str) -> None:
    """On a stub that has the installed module's names and rejects all others."""
    stub = stubs.make_tensorrt("", trt.__version__, names)
    assert build(stub, precision, keep_last=precision == "fp16").plan


@pytest.mark.parametrize(("kind", "fake"), [("ICudaEngine", FakeEngine), ("IExecutionContext", FakeContext)])
def test_a_run_uses_names_that_are_there(trt: Any, kind: str, fake: type) -> None:
    """The runner's tests use these fakes, which have no other names."""
    used = {name for name in vars(fake) if not name.startswith("_")} - set(getattr(fake, "__dataclass_fields__", ()))
    assert "set_input_shape" in used or "get_tensor_profile_shape" in used
    assert used <= set(dir(getattr(trt, kind)))


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
