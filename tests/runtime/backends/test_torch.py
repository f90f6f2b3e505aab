"""The torch backend: the same numbers as the graph, and code only from files with the manifest's digests."""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.bundle.folder import read_bundle
from atrous.errors import BackendError, BundleError
from atrous.runtime.backends import open_backend

from ..bundles import MODEL_SOURCE, SIZE_RULE, WEIGHT, expected_scores, make_image, make_manifest, write_torch_bundle

pytest.importorskip("torch", reason="torch is not installed")

IMAGE = make_image(19, 30)


def run_torch(folder: Path, **options: Any) -> dict[str, np.ndarray]:
    return open_backend("torch", read_bundle(folder), threads=1, **options).run({"image": IMAGE[None]})


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("mode", ["eager", "channels_last"])
def test_half(tmp_path: Path, precision: str, mode: str) -> None:
    source = MODEL_SOURCE.replace(
        "return self.score(data)", "print(data.dtype, data.stride()); return self.score(data)"
    )
    folder = write_torch_bundle(tmp_path, source=source)
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        scores = run_torch(folder, precision=precision, options={"mode": mode})["scores"]
    expected = expected_scores(IMAGE)
    bits = {"fp16": 10, "bf16": 7}[precision]
    assert scores.dtype == np.float32
    assert 0 < np.abs(scores[0] - expected).max() <= 4 * 2.0**-bits * np.abs(expected).max()  # rounded, and no more
    kind, stride = written.getvalue().split(" ", 1)
    assert kind == {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[precision]
    assert (", 1, " in stride) == (mode == "channels_last")


def test_modes_that_cannot_be_had(tmp_path: Path) -> None:
    folder = write_torch_bundle(tmp_path)
    with pytest.raises(BackendError, match='"cuda_graphs" needs the device "cuda"'):
        run_torch(folder, options={"mode": "cuda_graphs"})
    with pytest.raises(BackendError, match="runs fp32, fp16, bf16, not int8"):
        run_torch(folder, precision="int8")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, about itself
def test_compiled(tmp_path: Path) -> None:
    # a function and a class of the module: torch.compile looks both up by the module's name
    helped = MODEL_SOURCE.replace("class FourColors", "def twice(x):\n    return x + x\n\n\nclass FourColors")
    source = helped.replace("self.score(data)", "twice(self.score(data)) / 2")
    found = run_torch(write_torch_bundle(tmp_path, source=source), options={"mode": "compiled"})["scores"][0]
    np.testing.assert_allclose(found, expected_scores(IMAGE), atol=1e-4)


@pytest.mark.parametrize("head", ["scores", "lowres"])
def test_scores(tmp_path: Path, head: str) -> None:
    outputs = run_torch(write_torch_bundle(tmp_path, head))
    assert list(outputs) == ["scores"]
    np.testing.assert_allclose(outputs["scores"][0], expected_scores(IMAGE), atol=1e-4)


def test_labels(tmp_path: Path) -> None:
    labels = run_torch(write_torch_bundle(tmp_path, "labels"))["labels"]
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[0], expected_scores(IMAGE).argmax(0))


def test_preprocessing_by_the_manifest(tmp_path: Path) -> None:
    section = {"color_order": "RGB", "mean": [1.0, 2.0, 3.0], "scale": 0.5, "size_rule": SIZE_RULE}
    found = run_torch(write_torch_bundle(tmp_path, preprocessing=section))["scores"][0]
    pixels = (IMAGE - np.array([1.0, 2.0, 3.0])) * 0.5
    np.testing.assert_allclose(found, np.einsum("lc,hwc->lhw", WEIGHT, pixels), atol=1e-4)


def test_padding_is_zero_below_and_right(tmp_path: Path) -> None:
    source = MODEL_SOURCE.replace(
        "return self.score(data)", "import torch; torch.save(data, SINK); return self.score(data)"
    )
    sink = tmp_path / "blob.pt"
    run_torch(write_torch_bundle(tmp_path / "b", source=f"SINK = {str(sink)!r}\n{source}"))
    import torch

    blob = torch.load(sink, weights_only=True).numpy()
    assert blob.shape == (1, 3, 25, 33)
    assert not blob[:, :, 19:].any()
    assert not blob[:, :, :, 30:].any()
    np.testing.assert_array_equal(blob[0, 2, :19, :30], IMAGE[:, :, 0] - np.float32(122.675))


def test_several_outputs(tmp_path: Path) -> None:
    source = MODEL_SOURCE.replace("return self.score(data)", "return {'aux': data, 'fc8': self.score(data)}")
    blobs = [{"name": name, "shape": [1, 4, "h", "w"], "dtype": "float32"} for name in ("aux", "fc8")]
    deploy = {**make_manifest({"deploy.onnx": b""})["deploy"], "blob": "fc8"}
    found = run_torch(write_torch_bundle(tmp_path / "named", source=source, deploy=deploy, outputs=blobs))["scores"][0]
    np.testing.assert_allclose(found, expected_scores(IMAGE), atol=1e-4)
    with pytest.raises(BackendError, match=r"\['aux', 'fc8'\], the scores are .\?"):
        run_torch(write_torch_bundle(tmp_path / "unnamed", source=source, outputs=blobs))


def test_module_that_goes_on_after_the_scores(tmp_path: Path) -> None:
    deploy = {**make_manifest({"deploy.onnx": b""})["deploy"], "blob": "fc8"}
    blobs = [{"name": "argmax", "shape": [1, 1, "h", "w"], "dtype": "float32"}]
    with pytest.raises(BackendError, match=r"gives \['argmax'\], the scores are .fc8"):
        run_torch(write_torch_bundle(tmp_path, deploy=deploy, outputs=blobs))


def test_altered_source_is_not_executed(tmp_path: Path) -> None:
    folder = write_torch_bundle(tmp_path / "b")
    trace = tmp_path / "trace"
    evil = f"open({str(trace)!r}, 'w')\n"
    (folder / "model.py").write_text(evil + "#" * (len(MODEL_SOURCE) - len(evil)))  # the same size
    with pytest.raises(BundleError, match="was altered"):
        run_torch(folder)
    assert not trace.exists()


def test_altered_weights(tmp_path: Path) -> None:
    folder = write_torch_bundle(tmp_path)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="was altered"):
        run_torch(folder)


@pytest.mark.parametrize(
    ("source", "part"),
    [("def load(path): return 1 / 0", "ZeroDivisionError"), ("x = 1", "load"), ("def load(:", "SyntaxError")],
)
def test_code_that_fails(tmp_path: Path, source: str, part: str) -> None:
    with pytest.raises(BackendError, match=part):
        run_torch(write_torch_bundle(tmp_path, source=source))


def list_bundle_modules() -> set[str]:
    gc.collect()
    return {name for name in sys.modules if name.startswith("atrous_bundle_model")}


@pytest.mark.parametrize("closed", [True, False])
def test_code_is_importable_until_the_backend_is_closed_or_dropped(tmp_path: Path, closed: bool) -> None:
    folder, before = write_torch_bundle(tmp_path), list_bundle_modules()
    first, second = (open_backend("torch", read_bundle(folder), threads=1) for _ in range(2))
    assert len(list_bundle_modules() - before) == 2
    if closed:
        first.close()
    else:
        del first
    assert len(list_bundle_modules() - before) == 1
    second.close()
    assert list_bundle_modules() == before


@pytest.mark.parametrize("source", ["def load(path): return 1 / 0", MODEL_SOURCE.replace("net.eval()", "print")])
def test_code_that_fails_is_forgotten(tmp_path: Path, source: str) -> None:
    before = set(sys.modules)
    with pytest.raises(BackendError, match="does not load"):
        run_torch(write_torch_bundle(tmp_path, source=source))
    assert not {name for name in set(sys.modules) - before if name.startswith("atrous_bundle_model")}


def test_failure_to_move_to_the_device_is_one_line(tmp_path: Path) -> None:
    source = MODEL_SOURCE.replace("return net.eval()", "net.to = None; return net.eval()")
    with pytest.raises(BackendError, match=r"model\.py does not load: TypeError"):
        run_torch(write_torch_bundle(tmp_path, source=source))


def test_failure_while_running(tmp_path: Path) -> None:
    source = MODEL_SOURCE.replace("self.score(data)", "self.score(data[:, :2])")
    with pytest.raises(BackendError, match="torch failed"):
        run_torch(write_torch_bundle(tmp_path, source=source))


def test_no_cuda(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(BackendError, match="no CUDA device"):
        run_torch(write_torch_bundle(tmp_path), device="cuda")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads of this process in /proc")
def test_calls_from_many_threads_share_one_team_of_threads(tmp_path: Path) -> None:
    large = make_image(200, 300)[None]  # large enough that torch divides the work
    with contextlib.closing(open_backend("torch", read_bundle(write_torch_bundle(tmp_path)), threads=2)) as backend:
        expected = backend.run({"image": large})["scores"]
        before = set(os.listdir("/proc/self/task"))
        found: list[np.ndarray] = []
        grown: list[int] = []

        def run() -> None:
            found.append(backend.run({"image": large})["scores"])
            grown.append(len(set(os.listdir("/proc/self/task")) - before))

        for _ in range(2):  # one after the other: a thread's team ends with it
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    assert all(np.array_equal(scores, expected) for scores in found)
    assert grown == [1, 1], "the caller's thread, and no team of its own"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python, about a fork beside threads
def test_forked_process_runs_in_a_thread_of_its_own(tmp_path: Path) -> None:
    with contextlib.closing(open_backend("torch", read_bundle(write_torch_bundle(tmp_path)), threads=1)) as backend:
        expected = backend.run({"image": IMAGE[None]})["scores"]
        with multiprocessing.get_context("fork").Pool(1) as pool:
            scores = pool.apply_async(_run_in_fork, (tmp_path,)).get(timeout=60)
            pool.close()
            pool.join()
    np.testing.assert_array_equal(scores, expected)


def _run_in_fork(folder: Path) -> Any:
    return run_torch(folder)["scores"]
