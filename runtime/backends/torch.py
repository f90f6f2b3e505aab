"""The torch backend: the bundle's own `model.py`, executed.

`model.py` is code. Asking for this backend is asking to run it, so it is never chosen for the user, and the file must
carry the digest that the manifest lists: that proves it unaltered, not harmless. With bundles of strangers use
`onnxruntime`.

The module takes the prepared blob and gives full-size scores; preparing and cutting, which `deploy.onnx` holds inside
its graph, are done here by the manifest's words. A bundle whose head is `lowres` gives full-size `scores` here.

| mode            | what runs |
|-----------------|---|
| `eager`         | the module as it stands |
| `channels_last` | the same on NHWC memory, which most kernels prefer |
| `compiled`      | torch.compile of it, on NHWC memory; the first run of each shape compiles |
| `cuda_graphs`   | on a device: each shape's kernels recorded once and replayed, on NHWC memory |
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...dependencies import import_optional
from ...errors import BackendError
from .protocol import Array, TensorSpec, check_feeds

if TYPE_CHECKING:
    from ...bundle.folder import Bundle

SOURCE_NAME = "model.py"
WEIGHTS_NAME = "model.safetensors"

Mode = Literal["eager", "channels_last", "compiled", "cuda_graphs"]
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_WARM_UP_RUNS = 3  # before a capture: cuDNN chooses kernels and allocates its workspaces


@dataclass(frozen=True)
class TorchOptions:
    """How torch runs the module.

    Attributes:
        mode: see the table above.
        tf32: whether a device may round float32 factors to TF32; for all of torch in this process.
        benchmark: whether cuDNN tries its kernels for each new shape; for all of torch in this process.
    """

    mode: Mode = "eager"
    tf32: bool = False
    benchmark: bool = False


class TorchBackend:
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
        """Execute the bundle's `model.py` and load its weights.

        Args:
            bundle: an opened bundle that is trusted.
            device: "cpu" or "cuda".
            threads: threads on the CPU, for all of torch in this process; None leaves them as they are.
            precision: "fp32"; "fp16" or "bf16" turn the module's weights and blobs into that type. The image is
                prepared in float32 before, and scores are given in float32 after.
            options: how to run it.

        Raises:
            MissingDependencyError: if torch or safetensors is not installed.
            BackendError: if the device is missing, the module does not load, or mode and precision cannot be had.
            BundleError: if one of the two files is missing or altered.
        """
        options = options or TorchOptions()
        if device not in ("cpu", "cuda"):
            raise BackendError(f'the torch backend knows the devices cpu and cuda, not "{device}"')
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
        if threads is not None:
            self._torch.set_num_threads(threads)
        self.device = device
        self._dtype = getattr(self._torch, _DTYPES[precision])
        self._preprocessing = bundle.preprocessing
        self._blobs = [blob.name for blob in bundle.manifest.outputs]
        self._score_blob = bundle.deploy.blob or (self._blobs[0] if len(self._blobs) == 1 else None)
        if self._score_blob not in self._blobs:
            raise BackendError(
                f'{bundle.path}: the torch module gives {self._blobs}, the scores are "{self._score_blob or "?"}": use '
                "the onnxruntime backend"
            )
        self._is_channels_last = options.mode != "eager"
        self._module: Any = self._place_module(_load_module(bundle))
        self._forward: Any = self._make_forward(options.mode)
        self.inputs = (TensorSpec(bundle.deploy.input, "uint8", ("batch", "height", "width", 3)),)
        if bundle.deploy.head == "labels":
            self.outputs = (TensorSpec("labels", "uint8", ("batch", "height", "width")),)
        else:
            labels = len(bundle.manifest.classes)
            self.outputs = (TensorSpec("scores", "float32", ("batch", labels, "height", "width")),)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        forward = self._forward
        if forward is None:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        # (N, H, W, 3); torch has no read-only memory and no negative strides
        pixels = np.require(feeds[self.inputs[0].name], requirements=("C", "W"))
        try:
            with self._torch.inference_mode():
                result = forward(self._torch.from_numpy(pixels).to(self.device))
                return {self.outputs[0].name: result.cpu().numpy()}
        except Exception as error:  # besides RuntimeError whatever the compiler raises
            raise BackendError(f"torch failed: {(str(error).strip().splitlines() or [''])[0]}") from error

    def measure_compute_ms(self, feeds: Mapping[str, Array], runs: int) -> list[float]:
        """Times of the network alone, on the device's clock, the image there already and the output left there.

        Args:
            feeds: as for `run`.
            runs: how many are timed.

        Raises:
            InputError: as `run`.
            BackendError: as `run`.
        """
        if self._forward is None:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        torch = self._torch
        pixels = torch.from_numpy(np.require(feeds[self.inputs[0].name], requirements=("C", "W"))).to(self.device)
        times_ms = []
        with torch.inference_mode():
            for _ in range(runs):
                if self.device == "cpu":
                    started_s = time.perf_counter()
                    self._forward(pixels)
                    times_ms.append((time.perf_counter() - started_s) * 1000)
                    continue
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                self._forward(pixels)
                end.record()
                end.synchronize()
                times_ms.append(start.elapsed_time(end))
        return times_ms

    def close(self) -> None:
        """Free the module."""
        self._module = self._forward = None

    def _prepare_device(self, options: TorchOptions) -> None:
        torch = self._torch
        if not torch.cuda.is_available():
            raise BackendError("this torch sees no CUDA device: see `atrous doctor`")
        torch.backends.cudnn.allow_tf32 = options.tf32
        torch.backends.cuda.matmul.allow_tf32 = options.tf32
        torch.backends.cudnn.benchmark = options.benchmark

    def _place_module(self, module: Any) -> Any:
        if self._is_channels_last:
            module = module.to(memory_format=self._torch.channels_last)
        return module.to(self.device, self._dtype)

    def _make_forward(self, mode: Mode) -> Any:
        if mode == "compiled":
            return self._torch.compile(self._compute, dynamic=False)
        if mode == "cuda_graphs":
            return _GraphedForward(self._torch, self._compute)
        return self._compute

    def _compute(self, pixels: Any) -> Any:
        """N x H x W x 3 uint8 RGB on the device -> the head's output on the device."""
        height, width = pixels.shape[1:3]
        output = self._module(self._prepare(pixels))  # one tensor, or a dict by blob
        scores = output[self._score_blob] if isinstance(output, dict) else output
        scores = scores[:, :, :height, :width].float()
        result = scores.argmax(dim=1).to(self._torch.uint8) if self.outputs[0].name == "labels" else scores
        return result.contiguous()

    def _prepare(self, image: Any) -> Any:
        """N x H x W x 3 uint8 RGB -> N x 3 x H' x W' as the net was trained on, in `deploy.onnx`'s order."""
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
    """A function of one tensor, recorded once a shape and replayed; one run at a time."""

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


def _load_module(bundle: Bundle) -> Any:
    source = bundle.read_file(SOURCE_NAME)
    bundle.verify_files([WEIGHTS_NAME])
    path = bundle.path / SOURCE_NAME
    # torch.compile imports the module that a function is from by its name, so it must be found there
    name = f"atrous_bundle_model_{bundle.manifest.files[SOURCE_NAME].sha256[:16]}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path.absolute())
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # trusted: see the module docstring
        return module.load(bundle.locate_file(WEIGHTS_NAME)).eval()
    except Exception as error:  # whatever the bundle's code raises
        raise BackendError(f"{path} does not load: {type(error).__name__}: {error}") from error
