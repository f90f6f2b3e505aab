"""The fake driver catches what CUDA leaves undefined."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime.backends.tensorrt.driver import CudaDriver
from tools.gpu_bench.fake_driver import DriverMisuseError, FakeDriver
from tools.gpu_bench.fake_engine import FakeEngine


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(bytes_per_ms=100.0)


def test_every_method_is_overridden() -> None:
    names = {name for name in vars(CudaDriver) if not name.startswith("_")}
    assert len(names) > 20
    assert names <= set(vars(FakeDriver))


def test_a_copy_runs_when_someone_waits(driver: FakeDriver) -> None:
    stream, address = driver.create_stream(), driver.allocate(4)
    there, back = driver.allocate_pinned(4), driver.allocate_pinned(4)
    there[:] = [1, 2, 3, 4]
    driver.copy_to_device(address, there, stream)
    driver.copy_to_host(back, address, stream)
    assert (back == 0xA5).all()  # not yet
    driver.synchronize(stream)
    assert back.tolist() == [1, 2, 3, 4]


def test_streams_need_events_between_them(driver: FakeDriver) -> None:
    first, second, event = driver.create_stream(), driver.create_stream(), driver.create_event()
    address, there, back = driver.allocate(1), driver.allocate_pinned(1), driver.allocate_pinned(1)
    there[:] = 7
    driver.copy_to_device(address, there, first)
    driver.copy_to_host(back, address, second)
    driver.synchronize(second)
    assert back[0] == 0xA5  # the copy in had not run
    driver.copy_to_device(address, there, first)
    driver.record_event(event, first)
    driver.wait_event(second, event)
    driver.copy_to_host(back, address, second)
    driver.synchronize(second)
    assert back[0] == 7


def test_clock_shows_overlap(driver: FakeDriver) -> None:
    streams = [driver.create_stream() for _ in range(2)]
    events = [driver.create_event() for _ in range(2)]
    memory, address = driver.allocate_pinned(300), driver.allocate(300)
    driver.record_event(events[0], streams[0])
    for stream in streams:  # 3 ms each, side by side
        driver.copy_to_device(address, memory, stream)
    driver.wait_event(streams[0], events[0])
    driver.record_event(events[1], streams[0])
    for stream in streams:
        driver.synchronize(stream)
    assert driver.now_ms == 3.0
    assert driver.measure_ms(*events) == 3.0


def test_graph_runs_at_each_launch_with_the_memory_of_that_moment(driver: FakeDriver) -> None:
    stream, address = driver.create_stream(), driver.allocate(1)
    there, back = driver.allocate_pinned(1), driver.allocate_pinned(1)
    driver.begin_capture(stream)
    driver.copy_to_device(address, there, stream)
    driver.copy_to_host(back, address, stream)
    graph = driver.end_capture(stream)
    assert driver.count_nodes(graph) == 2
    executable = driver.instantiate(graph)
    for value in (3, 9):
        there[:] = value
        driver.launch(executable, stream)
        driver.synchronize(stream)
        assert back[0] == value


def test_misuse(driver: FakeDriver) -> None:
    stream, event = driver.create_stream(), driver.create_event()
    address, pinned = driver.allocate(8), driver.allocate_pinned(8)
    with pytest.raises(DriverMisuseError, match="default stream"):
        driver.copy_to_device(address, pinned, 0)
    with pytest.raises(DriverMisuseError, match="8 bytes in a block of 4"):
        driver.copy_to_device(address + 4, pinned, stream)
    with pytest.raises(DriverMisuseError, match="not pinned"):
        driver.copy_to_device(address, np.zeros(8, np.uint8), stream)
    with pytest.raises(DriverMisuseError, match="never recorded"):
        driver.wait_event(stream, event)
    with pytest.raises(DriverMisuseError, match="have not passed"):
        driver.measure_ms(event, event)
    with pytest.raises(DriverMisuseError, match="never allocated"):
        driver.copy_to_host(pinned, 64, stream)
    driver.copy_to_device(address, pinned, stream)
    driver.free(address)
    with pytest.raises(DriverMisuseError, match="use after free"):
        driver.synchronize(stream)
    with pytest.raises(DriverMisuseError, match="double free"):
        driver.free(address)


def test_misuse_of_captures(driver: FakeDriver) -> None:
    stream = driver.create_stream()
    driver.begin_capture(stream)
    with pytest.raises(DriverMisuseError, match="allocate during a capture"):
        driver.allocate(1)
    with pytest.raises(DriverMisuseError, match="synchronize during a capture"):
        driver.synchronize(stream)
    graph = driver.end_capture(stream)
    with pytest.raises(DriverMisuseError, match="empty capture"):
        driver.instantiate(graph)
    with pytest.raises(DriverMisuseError, match="never began"):
        driver.end_capture(stream)


def test_memory_ends() -> None:
    driver = FakeDriver(memory_bytes=100)
    address = driver.allocate(80)
    with pytest.raises(BackendError, match="full"):
        driver.allocate(40)
    driver.free(address)
    driver.allocate(90)
    assert driver.list_leaks() == ["1 device memory"]


def test_a_context_does_not_outlive_its_engine(driver: FakeDriver) -> None:
    engine = FakeEngine(driver, inputs=[], outputs=[], function=dict, shape_rule=dict, profiles=[{}])
    context = engine.create_execution_context()
    assert context.infer_shapes() == []
    del engine
    with pytest.raises(DriverMisuseError, match="whose engine is freed"):
        context.infer_shapes()
