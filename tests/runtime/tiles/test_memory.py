"""A gate holds images back; running out of memory comes with advice."""

from __future__ import annotations

import threading

import pytest

from atrous.errors import BackendError, MemoryLimitError
from atrous.runtime.tiles.memory import MemoryGate
from atrous.runtime.tiles.planner import explain_memory, write_size


def test_gate_holds_an_image_back_until_there_is_room() -> None:
    gate = MemoryGate(10)
    first, came_in = gate.reserve(6), threading.Event()

    def enter() -> None:
        with gate.reserve(6):
            came_in.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    gate.reserve(4).release()  # there is room for a smaller one meanwhile
    assert not came_in.is_set()
    first.release()
    waiting.join(30)
    assert came_in.is_set()


def test_gate_lets_an_image_in_alone_whatever_its_size() -> None:
    gate = MemoryGate(10)
    reservation = gate.reserve(1000)
    del reservation  # an image that was dropped on its way frees its memory
    with gate.reserve(11):
        pass


@pytest.mark.parametrize("error", [MemoryError("bad"), BackendError("ONNX Runtime failed: std::bad_alloc")])
def test_running_out_of_memory_comes_with_advice(error: Exception) -> None:
    with (
        pytest.raises(MemoryLimitError, match=r"4000x3000 pixels: .*--memory 2G.*--max-side.*--no-crf"),
        explain_memory((3000, 4000)),
    ):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(BackendError, match="closed"), explain_memory((3, 4)):
        raise BackendError("this backend was closed")


def test_sizes_for_people() -> None:
    assert [write_size(size) for size in (5e6, 2.34e9)] == ["5 MB", "2.3 GB"]
