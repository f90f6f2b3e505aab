"""The torch backend: executes the bundle's own `model.py`.

`model.py` is code, so this backend is used only where the user names it, and the file must have the digest that the
manifest lists. The digest proves it unaltered, not harmless: for a stranger's bundle use `onnxruntime`.

The module maps the preprocessed blob to full-size scores. Preprocessing and cropping, which `deploy.onnx` has in its
graph, are done here as the manifest says. A bundle whose head is `lowres` gives full-size `scores`.

| mode            | runs |
|-----------------|---|
| `eager`         | the module as it is |
| `channels_last` | the same in NHWC memory, which most kernels prefer |
| `compiled`      | torch.compile of it, in NHWC memory; the first run of each shape compiles |
| `cuda_graphs`   | on a device: each shape's kernels captured once and replayed, in NHWC memory |

On the CPU, one thread of this process does all the work of this backend, from loading on. OpenMP keeps a team of
threads for every thread that calls it, and once there are more of them than cores, they sleep at each of a network's
barriers instead of spinning (libgomp's throttling): 170 sleeps an image for a net of 40 layers.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from ...dependencies import import_optional
from ...errors import BackendError
from .protocol import Array, Backend, TensorSpec, check_feeds, first_line

if TYPE_CHECKING:
    from ...bundle.folder import Bundle

SOURCE_NAME = "model.py"
WEIGHTS_NAME = "model.safetensors"

Mode = Literal["eager", "channels_last", "compiled", "cuda_graphs"]
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_WARM_UP_RUNS = 3  # before a capture: cuDNN chooses kernels and allocates its workspaces
_MODULE_NUMBERS = itertools.count()

Result = TypeVar("Result")


class _CpuThread:
    """The thread that does all of torch's work on the CPU; a forked process starts one of its own."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="torch")  # it starts its thread at the first call

    def run(self, function: Callable[[], Result]) -> Result:
        """Call a function in that thread."""
        return self._pool.submit(function).result()


_cpu_thread = _CpuThread()


@dataclass(frozen=True)
class TorchOptions:
    """Options of the torch backend.

    Attributes:
        mode: see the table above.
        tf32: whether a CUDA device may round float32 factors to TF32; for all of torch in this process.
        benchmark: whether cuDNN times its kernels for each new shape; for all of torch in this process.
    """

    mode: Mode = "eager"
    tf32: bool = False
    benchmark: bool = False


class TorchBackend(Backend):
    """The bundle's torch module."""

    name = "torch"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        options: TorchOptions | None = None,
    ):
        """Execute a trusted bundle's `model.py`, load its weights; `threads` holds for all of torch in this process."""
        options = options or TorchOptions()
        if device not in ("cpu", "cuda"):
            raise BackendError(f'the torch backend runs on cpu or cuda, not "{device}"')
        if precision not in _DTYPES:
            raise BackendError(
                f"the torch backend runs {', '.join(_DTYPES)}, not {precision}: use the onnxruntime backend"
            )
        if options.mode == "cuda_graphs" and device != "cuda":
            raise BackendError('the mode "cuda_graphs" needs the device "cuda"')
        self._torch: Any = import_optional("torch")
        import_optional("safetensors")
        if device == "cuda":
            self._prepare_device(options)
        self.device = device
        if threads is not None:
            self._call(lambda: self._torch.set_num_threads(threads))
        self._dtype = getattr(self._torch, _DTYPES[precision])
        self._preprocessing = bundle.preprocessing
        blobs = [blob.name for blob in bundle.manifest.outputs]
        self._score_blob = bundle.deploy.blob or (blobs[0] if len(blobs) == 1 else None)
        if self._score_blob not in blobs:
            raise BackendError(
                f'{bundle.path}: the torch module gives {blobs}, the scores are "{self._score_blob or "?"}": use the '
                "onnxruntime backend"
            )
        self._is_channels_last = options.mode != "eager"
        self.inputs = (TensorSpec(bundle.deploy.input, "uint8", ("batch", "height", "width", 3)),)
        if bundle.deploy.head == "labels":
            self.outputs = (TensorSpec("labels", "uint8", ("batch", "height", "width")),)
        else:
            labels = len(bundle.manifest.classes)
            self.outputs = (TensorSpec("scores", "float32", ("batch", labels, "height", "width")),)
        self._forward: Callable[[Any], Any] | None = self._call(
            lambda: self._make_forward(self._load_module(bundle), options.mode)
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        forward, pixels = self._check(feeds)

        def compute() -> Array:
            with self._torch.inference_mode():
                output: Array = forward(self._torch.from_numpy(pixels).to(self.device)).cpu().numpy()
                return output

        try:
            return {self.outputs[0].name: self._call(compute)}
        except Exception as error:  # the compiler raises more than RuntimeError
            raise BackendError(f"torch failed: {first_line(error)}") from error

    def measure_compute_ms(self, feeds: Mapping[str, Array], runs: int) -> list[float]:
        """Time `runs` runs of the network alone by the device's clock, image and output on the device."""
        forward, array = self._check(feeds)
        return self._call(lambda: self._time(forward, array, runs))

    def _time(self, forward: Callable[[Any], Any], array: Array, runs: int) -> list[float]:
        torch, times_ms = self._torch, []
        pixels = torch.from_numpy(array).to(self.device)
        with torch.inference_mode():
            for _ in range(runs):
                if self.device == "cpu":
                    started_s = time.perf_counter()
                    forward(pixels)
                    times_ms.append((time.perf_counter() - started_s) * 1000)
                    continue
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                forward(pixels)
                end.record()
                end.synchronize()
                times_ms.append(start.elapsed_time(end))
        return times_ms

    def _call(self, function: Callable[[], Result]) -> Result:
        return _cpu_thread.run(function) if self.device == "cpu" else function()

    def close(self) -> None:
        """Free the module."""
        self._forward = None
        self._forget_code()

    def _check(self, feeds: Mapping[str, Array]) -> tuple[Callable[[Any], Any], Array]:
        """The forward function, and the N x H x W x 3 feed in memory that torch accepts."""
        forward = self._forward
        if forward is None:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        # torch has no read-only memory and no negative strides
        return forward, np.require(feeds[self.inputs[0].name], requirements=("C", "W"))

    def _prepare_device(self, options: TorchOptions) -> None:
        torch = self._torch
        if not torch.cuda.is_available():
            raise BackendError("this torch sees no CUDA device: see `atrous doctor`")
        torch.backends.cudnn.allow_tf32 = options.tf32
        torch.backends.cuda.matmul.allow_tf32 = options.tf32
        torch.backends.cudnn.benchmark = options.benchmark

    def _load_module(self, bundle: Bundle) -> Any:
        source = bundle.read_file(SOURCE_NAME)
        bundle.verify_files([WEIGHTS_NAME])
        path = bundle.path / SOURCE_NAME
        # torch.compile imports a function's module by name: it stays importable until the backend is closed
        code = ModuleType(f"atrous_bundle_model_{next(_MODULE_NUMBERS)}")
        code.__file__ = str(path.absolute())
        sys.modules[code.__name__] = code
        self._forget_code = weakref.finalize(self, sys.modules.pop, code.__name__, None)
        try:
            exec(compile(source, str(path), "exec"), code.__dict__)  # trusted: see the module docstring
            module = code.load(bundle.locate_file(WEIGHTS_NAME)).eval()
            if self._is_channels_last:
                module = module.to(memory_format=self._torch.channels_last)
            return module.to(self.device, self._dtype)
        except Exception as error:  # whatever the bundle's code raises
            self._forget_code()
            raise BackendError(f"{path} does not load: {type(error).__name__}: {error}") from error

    def _make_forward(self, module: Any, mode: Mode) -> Callable[[Any], Any]:
        def compute(pixels: Any) -> Any:
            return self._compute(module, pixels)

        if mode == "compiled":
            compiled: Callable[[Any], Any] = self._torch.compile(compute, dynamic=False)
            return compiled
        return _GraphedForward(self._torch, compute) if mode == "cuda_graphs" else compute

    def _compute(self, module: Any, pixels: Any) -> Any:
        """N x H x W x 3 uint8 RGB on the device -> the head's output on the device."""
        height, width = pixels.shape[1:3]
        output = module(self._preprocess(pixels))  # one tensor, or a dict by blob
        scores = output[self._score_blob] if isinstance(output, dict) else output
        scores = scores[:, :, :height, :width].float()
        result = scores.argmax(dim=1).to(self._torch.uint8) if self.outputs[0].name == "labels" else scores
        return result.contiguous()

    def _preprocess(self, image: Any) -> Any:
        """N x H x W x 3 uint8 RGB -> the net's padded input blob, N x 3 x H' x W', as `deploy.onnx` computes it."""
        torch, wanted = self._torch, self._preprocessing
        height, width = image.shape[1:3]
        padded_height, padded_width = wanted.size_rule.padded_size(height, width)
        pixels = image.float()  # (N, H, W, 3)
        if wanted.color_order == "BGR":
            pixels = pixels.flip(3)
        mean = torch.tensor(wanted.mean, device=pixels.device)
        pixels = (pixels - mean) * wanted.scale
        blob = pixels.permute(0, 3, 1, 2)  # (N, 3, H, W), in NHWC memory
        blob = torch.nn.functional.pad(blob, (0, padded_width - width, 0, padded_height - height)).to(self._dtype)
        layout = torch.channels_last if self._is_channels_last else torch.contiguous_format
        return blob.contiguous(memory_format=layout)


class _GraphedForward:
    """A function of one tensor, captured once per shape and replayed; one run at a time."""

    def __init__(self, torch: Any, function: Any):
        self._torch = torch
        self._function = function
        self._graphs: dict[tuple[int, ...], tuple[Any, Any, Any]] = {}  # shape -> graph, its input, its output
        self._lock = threading.Lock()  # a graph's input and output are the same memory in every run

    def __call__(self, pixels: Any) -> Any:
        with self._lock:
            shape = tuple(pixels.shape)
            if shape not in self._graphs:
                self._graphs[shape] = self._capture(pixels)
            graph, given, result = self._graphs[shape]
            given.copy_(pixels)
            graph.replay()
            copy = result.clone()
            self._torch.cuda.current_stream().synchronize()
            return copy

    def _capture(self, pixels: Any) -> tuple[Any, Any, Any]:
        torch, given = self._torch, pixels.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self._function(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._function(given)
        return graph, given, result
