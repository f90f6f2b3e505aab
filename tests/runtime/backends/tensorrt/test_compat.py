"""Types, logger, monitor and engine loading on stubs of every line."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from atrous.errors import BackendError, MissingDependencyError
from atrous.runtime.backends.tensorrt import compat

from . import stubs


@pytest.mark.parametrize("version", stubs.read_names())
def test_types(version: str) -> None:
    trt = stubs.make_tensorrt("", version)
    for name in trt.DataType.__members__:
        member = getattr(trt.DataType, name)
        if name in compat.NUMPY_NAMES:
            assert np.dtype(compat.numpy_name(member)).name == compat.NUMPY_NAMES[name]
        else:
            with pytest.raises(BackendError, match=f"has type {name}, which NumPy lacks"):
                compat.numpy_name(member)


@pytest.mark.parametrize("line", stubs.LINES)
def test_listeners(line: str) -> None:
    trt = stubs.make_tensorrt(line)
    lines: list[str] = []
    logger = compat.make_logger(trt, lines)
    for name in ("INFO", "WARNING", "ERROR", "INTERNAL_ERROR", "VERBOSE"):
        logger.log(SimpleNamespace(name=name), "text")
    assert lines == ["warning: text", "error: text", "internal_error: text"]


def test_a_log_does_not_grow_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_MAX_LOG_LINES", 2)
    trt = stubs.make_tensorrt("10")
    lines: list[str] = []
    logger = compat.make_logger(trt, lines)
    for _ in range(5):
        logger.log(SimpleNamespace(name="ERROR"), "text")
    assert len(lines) == 2


def test_a_line_that_repeats_is_one() -> None:
    """As of RTX, which logs one for each convolution."""
    scales = "warning: Converting conv weight scales to fp32."
    assert compat.merge_lines([scales, "warning: other", scales, scales]) == (f"{scales} (3 times)", "warning: other")


def test_the_inspector_must_give_an_object() -> None:
    trt = stubs.make_tensorrt("10")

    def engine(text: str) -> SimpleNamespace:
        inspector = SimpleNamespace(get_engine_information=lambda form: text)
        return SimpleNamespace(create_engine_inspector=lambda: inspector)

    assert compat.inspect_engine(trt, engine("{}")) == {}
    for text in ("", "[]", "{"):
        with pytest.raises(BackendError, match="inspector returns no JSON object"):
            compat.inspect_engine(trt, engine(text))


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises((MissingDependencyError, BackendError)) as caught:
        compat.load_tensorrt()
    assert caught.value.exit_code == 3


def test_host_code_is_never_allowed() -> None:
    """A plan may contain code of its own, which the runtime must not run."""
    trt = stubs.make_tensorrt("10")
    loaded = compat.LoadedEngine(trt, b'{"version": "10.13.3.9"}')
    assert loaded.engine is not None
    loaded.close()
    assert trt.behavior.list_alive() == []
    assert "Runtime.engine_host_code_allowed" not in trt.behavior.touched


def test_the_stubs_notice_what_outlives_its_owner() -> None:
    """The real library crashes; the tests of the builder rely on the stubs to raise."""
    trt = stubs.make_tensorrt("10")
    logger = trt.ILogger()
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    del network
    with pytest.raises(stubs.LifetimeError, match="used after its network"):
        parser.parse(b"")
    del parser
    del builder  # before its logger, as the stubs require
