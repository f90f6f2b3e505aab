"""Arrays in the device's memory in and out by DLPack, and the rest of the Python side, on the emulation.

Its device memory is the CPU's, so that torch's CPU tensors stand for arrays on a GPU.
"""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from atrous.errors import CrfInputError
from atrous.runtime.crf import CancelToken, CrfParameters, DenseCRF, FrameCrf, dense_crf
from atrous.runtime.crf.gpu.arrays import DeviceArray
from atrous.runtime.crf.gpu.engine import allocate_array
from atrous.runtime.crf.terms import forget_lattices
from tools.cuda_on_cpu.driver import EmulatedDriver

from ..conftest import make_problem

torch = pytest.importorskip("torch", reason="its tensors stand for arrays on a GPU")

IMAGE, PROBABILITIES = make_problem(33, 41, 5)
SCORES = np.log(PROBABILITIES)
ITERATIONS = 3


def on_device(array: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array))


def make_model(**options: Any) -> DenseCRF:
    crf = DenseCRF((33, 41), 5, threads=1, **options)
    crf.add_gaussian(3, 3)
    crf.add_bilateral(30, 12, IMAGE, 4)
    return crf


@pytest.fixture(autouse=True)
def no_memory_left(forward: EmulatedDriver) -> Any:
    yield
    forget_lattices()
    gc.collect()
    assert forward.allocated_bytes == 0
    assert not forward._graphs


@pytest.mark.parametrize("padded", [None, (41, 49)])
@pytest.mark.parametrize("scores", [SCORES, SCORES[:, ::4, ::4], SCORES[:, ::4, ::4].astype(np.float16)])
def test_scores_in_marginals_out(scores: np.ndarray[Any, Any], padded: tuple[int, int] | None) -> None:
    options: Any = {"iterations": ITERATIONS, "padded": padded}
    expected = dense_crf(IMAGE, scores=scores, **options)
    found: Any = dense_crf(on_device(IMAGE), scores=on_device(scores), **options, device="cuda")
    assert isinstance(found, DeviceArray)
    np.testing.assert_array_equal(found.to_host(), expected)
    tensor = torch.from_dlpack(found)
    del found
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_scores_finer_than_the_image() -> None:
    """A small image that was padded much has more scores than pixels."""
    scores, options = SCORES[:, :9, :9], {"iterations": ITERATIONS, "padded": (33, 33)}
    image = np.ascontiguousarray(IMAGE[:5, :7])
    found: Any = dense_crf(image, scores=on_device(scores), device="cuda", **options)
    np.testing.assert_array_equal(found.to_host(), dense_crf(image, scores=scores, **options))


def test_labels_out() -> None:
    expected = dense_crf(IMAGE, PROBABILITIES, iterations=ITERATIONS).argmax(axis=0)
    for device in ("cpu", "cuda"):
        found = dense_crf(IMAGE, PROBABILITIES, iterations=ITERATIONS, device=device, output="labels")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    on_gpu: Any = dense_crf(IMAGE, scores=on_device(SCORES), iterations=ITERATIONS, device="cuda", output="labels")
    np.testing.assert_array_equal(np.from_dlpack(on_gpu), expected)


@pytest.mark.parametrize("read", [DeviceArray.to_host, np.from_dlpack])
def test_results_are_read_by_another_thread(read: Any) -> None:
    found = dense_crf(IMAGE, scores=on_device(SCORES), iterations=ITERATIONS, device="cuda")
    with ThreadPoolExecutor(1) as pool:
        values = pool.submit(read, found).result()
    np.testing.assert_array_equal(values, dense_crf(IMAGE, scores=SCORES, iterations=ITERATIONS))


def test_results_are_the_input_of_others() -> None:
    first: Any = dense_crf(IMAGE, scores=on_device(SCORES), iterations=1, device="cuda")
    again: Any = dense_crf(IMAGE, first, iterations=1, device="cuda")
    expected = dense_crf(IMAGE, dense_crf(IMAGE, scores=SCORES, iterations=1), iterations=1)
    np.testing.assert_allclose(again.to_host(), expected, rtol=0, atol=1e-5)


def test_memory_is_there_for_any_stream(forward: EmulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def note(name: str) -> None:
        original = getattr(forward, name)

        def call(*given: Any) -> Any:
            calls.append(name)
            return original(*given)

        monkeypatch.setattr(forward, name, call)

    note("allocate_queued")
    note("synchronize")
    allocate_array((2, 3), "float32")
    assert calls == ["allocate_queued", "synchronize"]


def test_parts_of_an_array_keep_its_memory(forward: EmulatedDriver) -> None:
    values = np.stack([SCORES, SCORES[::-1]])
    array = allocate_array(values.shape, "float32")
    torch.from_dlpack(array).copy_(torch.from_numpy(values))
    for part, expected in zip(array, values, strict=True):
        np.testing.assert_array_equal(np.from_dlpack(part), expected)
    first, *_ = array
    del array, part
    assert forward.allocated_bytes == values.nbytes
    found: Any = dense_crf(IMAGE, scores=first, iterations=1, device="cuda")
    np.testing.assert_array_equal(found.to_host(), dense_crf(IMAGE, scores=SCORES, iterations=1))


def test_energies_and_probabilities_on_the_device() -> None:
    crf, reference = make_model(device="cuda"), make_model()
    energies = -np.log(PROBABILITIES)
    crf.set_unary(on_device(energies))
    reference.set_unary(energies)
    found: Any = crf.inference(ITERATIONS)
    np.testing.assert_array_equal(found.to_host(), reference.inference(ITERATIONS))
    # NumPy's logarithm of a probability may differ in its last bit
    crf.set_probabilities(on_device(PROBABILITIES))
    reference.set_probabilities(PROBABILITIES)
    np.testing.assert_allclose(crf.unary_energies(), reference.unary_energies(), rtol=3e-7, atol=1e-7)
    found = crf.inference(ITERATIONS)
    np.testing.assert_allclose(found.to_host(), reference.inference(ITERATIONS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "array", "message"),
    [
        ("unary", np.full((5, 33, 41), np.nan, np.float32), "NaN"),
        ("unary", np.full((5, 33, 41), 1e30, np.float32), "overflow"),
        ("unary", np.zeros((5, 33, 41), np.float16), "float32"),
        ("unary", np.zeros((33, 41, 5), np.float32), "labels are last"),
        ("scores", np.full((5, 33, 41), np.inf, np.float32), "NaN or infinite"),
        ("scores", np.zeros((5, 34, 41), np.float32), "coarser grid"),
        ("scores", np.zeros((4, 3, 4), np.float32), "5 labels first"),
        ("scores", np.zeros((5, 33, 41), np.uint8), "float32"),
        ("scores", np.zeros((5, 33, 41), np.float64), "float32, float16 or uint8"),
        ("probabilities", SCORES, "before the softmax"),
        ("probabilities", PROBABILITIES * np.float32(0.5), "differ from 1 by 0.5"),
        ("probabilities", np.full((5, 33, 41), np.nan, np.float32), "NaN"),
    ],
)
def test_wrong_arrays_on_the_device(what: str, array: Any, message: str) -> None:
    crf = make_model(device="cuda")
    with pytest.raises(CrfInputError, match=message):
        getattr(crf, f"set_{what}")(on_device(array))
    with pytest.raises(CrfInputError, match="needs a unary"):
        crf.inference(1)


def test_wrong_images_on_the_device() -> None:
    crf = make_model(device="cuda")
    for image in (IMAGE[:-1], IMAGE.astype(np.float32), IMAGE.transpose(1, 0, 2)):
        with pytest.raises(CrfInputError, match="image on the device must be uint8"):
            crf.set_image(on_device(image))
    with pytest.raises(CrfInputError, match="contiguous"):
        crf.set_image(on_device(IMAGE)[:, ::2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DenseCRF((4, 4), 2, device="cuda", storage="float16"), "float32"),
        (lambda: DenseCRF((4, 4), 2, device="cuda", kernels="portable"), "no choice of kernels"),
        (lambda: DenseCRF((4, 4), 2048, device="cuda"), "from 1 to 2047"),
        (lambda: DenseCRF((4, 4), 2, device="gpu"), "must be"),  # type: ignore[arg-type]
        (lambda: dense_crf(IMAGE, PROBABILITIES, device="cuda", settle=0.9), "shortcuts"),
        (lambda: dense_crf(IMAGE, PROBABILITIES, device="cuda", backend="pydensecrf"), "backend"),
        (lambda: dense_crf(IMAGE, PROBABILITIES, output="both"), "must be"),  # type: ignore[arg-type]
    ],
)
def test_what_a_gpu_does_not_have(call: Any, message: str) -> None:
    with pytest.raises(CrfInputError, match=message):
        call()


def test_calls_that_a_gpu_does_not_have() -> None:
    crf = make_model(device="cuda")
    crf.set_probabilities(PROBABILITIES)
    crf.start()
    for call in (crf.prune_labels, crf.kl_divergence, lambda: crf.inference(1, settle=0.5)):
        with pytest.raises(CrfInputError, match="GPU"):
            call()


def test_a_model_is_used_again(forward: EmulatedDriver) -> None:
    """Steps, warm starts, marginals from outside, other images, terms and compatibilities: as the CPU, bit for bit."""
    crf, reference = make_model(device="cuda"), make_model()
    other = np.ascontiguousarray(IMAGE[::-1])
    for model in (crf, reference):
        model.set_probabilities(PROBABILITIES)

    def compare(act: Any) -> None:
        np.testing.assert_array_equal(act(crf), act(reference))

    compare(lambda model: model.inference(3))
    assert forward.replays == 2
    compare(lambda model: model.inference(2, warm=True))
    assert forward.replays == 4  # the graph is kept
    compare(lambda model: model.start())
    compare(lambda model: model.step())
    compare(lambda model: (model.set_marginals(PROBABILITIES), model.step())[1])
    compare(lambda model: (model.set_image(other), model.inference(3))[1])
    compare(lambda model: (model.set_compatibilities([2, [-1.0, -2, -1, -3, -1]]), model.inference(3))[1])
    compare(lambda model: (model.set_scores(SCORES), model.inference(3))[1])
    compare(lambda model: (model.clear_terms(), model.inference(2))[1])
    assert crf.size_bytes > 0
    assert crf.blurred_rows == []
    assert crf.report is not None
    assert crf.report.iterations == 2


def test_the_position_lattice_is_kept(forward: EmulatedDriver) -> None:
    make_model(device="cuda")
    before = forward.launches
    DenseCRF((33, 41), 5, device="cuda").add_gaussian(3, 3)
    assert forward.launches == before


def test_a_token_stops_the_updates() -> None:
    crf, token = make_model(device="cuda"), CancelToken()
    crf.set_probabilities(PROBABILITIES)
    token.cancel()
    crf.inference(5, token=token)
    assert crf.report is not None
    assert crf.report.cancelled
    assert crf.report.iterations == 1


def test_frames() -> None:
    parameters = CrfParameters.from_dict(
        {"mode": "deeplab", "iterations": 2, "gaussian": [], "bilateral": [{"sxy": 30, "srgb": 12, "weight": 4}]}
    )
    frames = [FrameCrf(parameters, updates=1, threads=1, device=device) for device in ("cpu", "cuda")]
    for turn in range(3):
        image = np.roll(IMAGE, turn, axis=1)
        expected, found = (frame(image, PROBABILITIES) for frame in frames)
        np.testing.assert_array_equal(found, expected)
    assert frames[1].warm_starts == 2


def test_one_thread_at_a_time() -> None:
    crf = make_model(device="cuda")
    with crf._field, pytest.raises(CrfInputError, match="another thread"):
        crf.set_probabilities(PROBABILITIES)
