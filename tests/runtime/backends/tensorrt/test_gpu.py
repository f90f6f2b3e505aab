"""Engines on a GPU: build, agreement with the CPU, CUDA graphs, streams, threads, closing, memory, precision.

`pytest -m gpu tests/runtime/backends` runs them on a GPU with TensorRT. The tests with the parameter "fake" are the
same ones without a GPU: they prove that the tests run, not that CUDA does.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.crf_parameters import CrfParameters
from atrous.bundle.folder import Bundle, read_bundle
from atrous.errors import BackendError, InputError, MissingDependencyError
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeOptions
from atrous.runtime.backends.protocol import Array
from atrous.runtime.backends.tensorrt.backend import TensorRtBackend, TensorRtOptions
from atrous.runtime.crf import gpu as crf_gpu
from atrous.runtime.crf.gpu import engine as crf_engine
from atrous.runtime.crf.terms import forget_lattices
from tools.gpu_bench.cases import LIMITS
from tools.gpu_bench.prepare import draw_images, prepare_net, read_nets

from ...crf.gpu.conftest import open_emulation
from .machines import Gpu, Machine, fill_memory, make_machine

pytest.importorskip("torch", reason="the converter needs torch")
pytestmark = pytest.mark.filterwarnings("default")  # NVIDIA's libraries may warn; only the scores matter here
gpu_only = pytest.mark.gpu
PRECISIONS = ("fp32", "fp16", "int8")
SIZE = (65, 65)
#: a net whose pooling masks have ties: zeros after a ReLU
MASKS = """
name: "masks" input: "data" input_dim: 1 input_dim: 3 input_dim: 64 input_dim: 64
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 pad: 1 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" top: "mask"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Upsample" bottom: "pool" bottom: "mask" top: "up" upsample_param { scale: 2 } }
layer { name: "scores" type: "Convolution" bottom: "up" top: "scores"
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "gaussian" std: 0.1 } } }
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The miniature with FP16 and INT8 variants, lowres scores."""
    net = read_nets(["miniature"])["miniature"]
    return prepare_net(net, tmp_path_factory.mktemp("gpu") / "bundle", PRECISIONS[1:], SIZE, 2)


@pytest.fixture(scope="module", params=["fake", pytest.param("gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Fakes, and the GPU; skips without one."""
    try:
        made: Machine = make_machine(request.param)
    except (BackendError, MissingDependencyError) as error:
        pytest.skip(str(error))
    return made


@pytest.fixture
def gpu(machine: Machine) -> Gpu:
    """The GPU alone."""
    if not isinstance(machine, Gpu):
        pytest.skip("the fakes build no engine")
    return machine


@pytest.fixture(scope="module")
def references(bundle: Bundle) -> dict[str, OnnxRuntimeBackend]:
    """ONNX Runtime on the CPU by precision; FP16 is compared with float32."""
    graphs = {"fp32": "fp32", "fp16": "fp32", "int8": "int8"}
    return {
        name: OnnxRuntimeBackend(bundle.read_file(bundle.deploy_file(graph)), threads=1)
        for name, graph in graphs.items()
    }


def images(count: int, size: tuple[int, int] = SIZE) -> list[Array]:
    """Different images, 1 x H x W x 3 uint8."""
    return [image[None] for image in draw_images(*size, count, seed=5)]


def run(backend: Any, image: Array) -> Array:
    """The scores of a batch."""
    (scores,) = backend.run({"image": image}).values()
    return np.asarray(scores)


def measure_error(found: Array, expected: Array) -> float:
    """The root mean square of the difference over that of the reference."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def require_same(found: Array, expected: Array) -> None:
    """Require the same scores; kernels that add in any order may change the last digits."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.fixture
def opened(machine: Machine, bundle: Bundle) -> Iterator[Any]:
    """Opens backends of the bundle: precision, options -> backend; closes them."""
    backends: list[TensorRtBackend] = []

    def open_engine(precision: str = "fp32", **options: Any) -> TensorRtBackend:
        backends.append(machine.open(bundle, precision, TensorRtOptions(**options)))
        return backends[-1]

    yield open_engine
    for backend in backends:
        backend.close()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_agrees_with_the_cpu(opened: Any, references: dict[str, OnnxRuntimeBackend], precision: str) -> None:
    backend = opened(precision)
    for image in (*images(2), *images(2, (33, 97))):
        assert measure_error(run(backend, image), run(references[precision], image)) <= LIMITS[precision]


@gpu_only
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_product_is_as_narrow_as_in_the_graph(gpu: Gpu, bundle: Bundle, precision: str) -> None:
    audit = gpu.audit(bundle, precision)
    print(audit.to_json())
    audit.require(1.0)
    assert sum(audit.products.values()) >= 16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cuda_graphs_compute_what_the_engine_does(opened: Any, precision: str) -> None:
    """The second run of a shape captures, later ones replay; another shape in between has its own graph."""
    plain, graphed = opened(precision), opened(precision, cuda_graphs=True)
    for image in (*images(4), *images(3, (33, 33)), *images(2)):
        require_same(run(graphed, image), run(plain, image))


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_images_in_flight_do_not_mix(opened: Any, cuda_graphs: bool) -> None:
    given = images(9)
    expected = [run(opened(), image) for image in given]
    backend = opened(slots=3, cuda_graphs=cuda_graphs)
    for _ in range(3):
        found = [next(iter(outputs.values())) for outputs in backend.run_many({"image": image} for image in given)]
        for one, other in zip(found, expected, strict=True):
            require_same(one, other)


def test_a_batch_equals_its_images(opened: Any, references: dict[str, OnnxRuntimeBackend]) -> None:
    backend = opened()
    batch = np.concatenate(images(4, (33, 49)))
    found = run(backend, batch)
    for scores, image in zip(found, batch, strict=True):
        assert measure_error(scores[None], run(references["fp32"], image[None])) <= LIMITS["fp32"]


def test_two_threads(machine: Machine, opened: Any) -> None:
    given = images(6)
    expected = [run(opened(), image) for image in given]
    backend = opened(contexts=2 if machine.has_threads else 1)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for found, scores in zip(pool.map(lambda image: run(backend, image), given), expected, strict=True):
                require_same(found, scores)


def test_close_waits_for_what_runs(machine: Machine, opened: Any) -> None:
    given = images(1)[0]
    backend = opened()
    expected, begun, found = run(backend, given), threading.Event(), []

    def work() -> None:
        for outputs in backend.run_many({"image": given} for _ in range(20)):
            begun.set()
            found.append(next(iter(outputs.values())))

    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(60)
    backend.close()
    assert len(found) == 20  # the run had ended
    worker.join(60)
    for scores in found:
        require_same(scores, expected)
    with pytest.raises(BackendError, match="this backend was closed"):
        run(backend, given)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_out_of_memory_and_again(machine: Machine, opened: Any, cuda_graphs: bool) -> None:
    image = images(1, (97, 129))[0]
    expected = run(opened(), image)
    backend = opened(cuda_graphs=cuda_graphs)
    with fill_memory(machine.driver), pytest.raises(BackendError, match=r"(?i)memory"):
        run(backend, np.repeat(image, 4, axis=0))
    for _ in range(3):
        require_same(run(backend, image), expected)


def test_shapes_outside_the_profiles(opened: Any) -> None:
    backend = opened()
    for shape in ((1, 32, 65, 3), (5, 65, 65, 3), (1, 65, 130, 3)):
        with pytest.raises(InputError, match="the engine takes"):
            run(backend, np.zeros(shape, np.uint8))
    assert run(backend, images(1)[0]).shape[0] == 1


def test_times_are_in_order(opened: Any) -> None:
    backend = opened(slots=2)
    image = images(1)[0]
    run(backend, image)
    with backend.open_stream() as stream:
        tickets = [stream.submit({"image": image}) for _ in range(2)]
        for ticket in tickets:
            ticket.result()
            times = ticket.timings_ms
            assert min(times[name] for name in ("h2d", "compute", "d2h")) >= 0
            assert times["latency"] >= times["compute"] > 0
            assert times["latency"] + 1e-3 >= times["h2d"] + times["compute"] + times["d2h"]


def test_no_memory_is_lost(machine: Machine, bundle: Bundle) -> None:
    image = images(1)[0]

    def use() -> int:
        backend = machine.open(bundle, "fp32", TensorRtOptions(slots=3, cuda_graphs=True))
        for _ in range(3):
            run(backend, image)
        backend.close()
        machine.driver.activate()
        return machine.count_free_bytes()

    use()  # loads what stays: CUDA's own modules
    first = use()
    for _ in range(5):
        last = use()
    assert last >= first - (16 << 20)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_scores_stay_on_the_device(
    machine: Machine, bundle: Bundle, cuda_graphs: bool, request: pytest.FixtureRequest
) -> None:
    """The labels and probabilities are those of scores that come to the host, and of the CRF on the CPU."""
    if not isinstance(machine, Gpu):
        request.getfixturevalue("emulated_crf")
    backend = machine.open(bundle, "fp32", TensorRtOptions(cuda_graphs=cuda_graphs))
    with runtime.load(bundle.path, backend, crf=CrfParameters(iterations=3), crf_device="cuda") as segmenter:
        on_cpu = runtime.load(bundle.path, backend, crf=segmenter.crf)
        for (image,) in images(3):
            assert segmenter.keeps_on_device(*SIZE)
            (scores,) = segmenter.run_network_batch([segmenter.prepare(image)], on_device=True)
            raw = scores.to_host()
            require_same(raw, segmenter.run_network(segmenter.prepare(image)))
            for probabilities in (False, True):
                found = segmenter.finish(image, scores, probabilities=probabilities)
                for reference in (segmenter, on_cpu):
                    expected = reference.finish(image, raw, probabilities=probabilities)
                    np.testing.assert_array_equal(found.labels, expected.labels)
                    if probabilities:
                        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
            assert segmenter(image).shape == SIZE
        before = machine.count_free_bytes()
        for _ in range(20):
            segmenter(image)
        assert machine.count_free_bytes() >= before - (16 << 20)


@pytest.fixture
def emulated_crf(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The dense CRF's kernels on the CPU, in the memory of the fake device."""
    emulation = open_emulation(backward=False)
    for module in (crf_gpu, crf_engine):
        monkeypatch.setattr(module, "open_driver", lambda: emulation)
    monkeypatch.setattr(machine.driver, "emulation", emulation)
    yield
    forget_lattices()


@gpu_only
def test_pooling_masks_with_ties(gpu: Gpu, tmp_path: Path) -> None:
    """Caffe and ONNX take the first of equal maxima; TensorRT promises no order."""
    from atrous.converter import BundleOptions, read_net, write_bundle

    write_bundle(read_net(MASKS), tmp_path / "masks", BundleOptions(head="scores", verify=False))
    made = read_bundle(tmp_path / "masks")
    backend = gpu.open(made, "fp32", TensorRtOptions())
    reference = OnnxRuntimeBackend(made.read_file(made.deploy_file()), threads=1)
    for image in images(3, (64, 64)):
        assert measure_error(run(backend, image), run(reference, image)) <= LIMITS["fp32"]
    backend.close()


@gpu_only
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_providers_of_onnxruntime(gpu: Gpu, bundle: Bundle, references: dict[str, Any], provider: Any) -> None:
    model = bundle.read_file(bundle.deploy_file())
    try:
        backend = OnnxRuntimeBackend(model, device="cuda", options=OnnxRuntimeOptions(provider=provider))
    except BackendError as error:
        pytest.skip(str(error))
    for image in images(2):
        assert measure_error(run(backend, image), run(references["fp32"], image)) <= LIMITS["fp32"]
    backend.close()


@gpu_only
@pytest.mark.parametrize("mode", ["eager", "channels_last", "cuda_graphs"])
def test_torch(gpu: Gpu, bundle: Bundle, references: dict[str, Any], mode: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA")
    backend = open_backend("torch", bundle, device="cuda", options={"mode": mode})
    scores = [run(backend, image) for image in images(3)]
    eager = open_backend("torch", bundle, device="cpu")
    for found, image in zip(scores, images(3), strict=True):
        assert measure_error(found, run(eager, image)) <= LIMITS["fp32"]
    backend.close()


@gpu_only
def test_the_commands(gpu: Gpu, bundle: Bundle, tmp_path: Path) -> None:
    """`atrous build` with its audit and `--replay`, and labels from the stored engine as from the CPU."""
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.fromarray(images(1)[0][0]).save(photo)

    def atrous(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "atrous", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    shape = ("--shape", f"{SIZE[0]}x{SIZE[1]}", "--precision", "fp16")
    atrous("build", str(bundle.path), *shape, "--repeats", "2")
    atrous("build", str(bundle.path), *shape, "--replay")
    labels = {}
    for backend in ("tensorrt", "onnxruntime"):
        folder = tmp_path / backend
        atrous(
            "segment", str(bundle.path), str(photo), "-o", str(folder), "--backend", backend, "--no-crf",
            *(("--precision", "fp16") if backend == "tensorrt" else ()),
        )  # fmt: skip
        (path,) = folder.rglob("*.png")
        labels[backend] = np.asarray(Image.open(path))
    assert (labels["tensorrt"] == labels["onnxruntime"]).mean() >= 0.99
