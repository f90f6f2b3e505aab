"""The torch backend: the bundle's own `model.py`, executed.

`model.py` is code. Asking for this backend is asking to run it, so it is never chosen for the user, and the file must
carry the digest that the manifest lists: that proves it unaltered, not harmless. With bundles of strangers use
`onnxruntime`.

The module takes the prepared blob and gives full-size scores; preparing and cutting, which `deploy.onnx` holds inside
its graph, are done here by the manifest's words. A bundle whose head is `lowres` gives full-size `scores` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..bundle import Bundle
from ..dependencies import import_optional
from ..errors import BackendError
from .protocol import Array, TensorSpec, check_feeds

SOURCE_NAME = "model.py"
WEIGHTS_NAME = "model.safetensors"


class TorchBackend:
    """The bundle's torch module: eager, float32, without TF32."""

    name = "torch"

    def __init__(self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None):
        """Execute the bundle's `model.py` and load its weights.

        Args:
            bundle: an opened bundle that is trusted.
            device: "cpu" or "cuda".
            threads: threads on the CPU, for all of torch in this process; None leaves them as they are.

        Raises:
            MissingDependencyError: if torch or safetensors is not installed.
            BackendError: if the device is missing, or the module does not load.
            BundleError: if one of the two files is missing or altered.
        """
        if device not in ("cpu", "cuda"):
            raise BackendError(f'the torch backend knows the devices cpu and cuda, not "{device}"')
        self._torch: Any = import_optional("torch")
        import_optional("safetensors")
        if device == "cuda" and not self._torch.cuda.is_available():
            raise BackendError("this torch sees no CUDA device: see `atrous doctor`")
        if threads is not None:
            self._torch.set_num_threads(threads)
        self.device = device
        self._preprocessing = bundle.preprocessing
        self._blobs = [blob.name for blob in bundle.manifest.outputs]
        self._score_blob = bundle.deploy.blob or (self._blobs[0] if len(self._blobs) == 1 else None)
        if self._score_blob not in self._blobs:
            raise BackendError(
                f'{bundle.path}: the torch module gives {self._blobs}, the scores are "{self._score_blob or "?"}": use '
                "the onnxruntime backend"
            )
        self._module: Any = _load_module(bundle).to(device)
        self.inputs = (TensorSpec(bundle.deploy.input, "uint8", ("batch", "height", "width", 3)),)
        if bundle.deploy.head == "labels":
            self.outputs = (TensorSpec("labels", "uint8", ("batch", "height", "width")),)
        else:
            labels = len(bundle.manifest.classes)
            self.outputs = (TensorSpec("scores", "float32", ("batch", labels, "height", "width")),)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        if self._module is None:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        image = feeds[self.inputs[0].name]  # (N, H, W, 3)
        height, width = image.shape[1:3]
        torch = self._torch
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                output = self._module(self._prepare(image))  # one tensor, or a dict by blob
                scores = output[self._score_blob] if isinstance(output, dict) else output
                scores = scores[:, :, :height, :width]
                name = self.outputs[0].name
                result = scores.argmax(dim=1).to(torch.uint8) if name == "labels" else scores
                return {name: result.contiguous().cpu().numpy()}
        except RuntimeError as error:
            raise BackendError(f"torch failed: {(str(error).splitlines() or [''])[0]}") from error

    def close(self) -> None:
        """Free the module."""
        self._module = None

    def _prepare(self, image: Array) -> Any:
        """N x H x W x 3 uint8 RGB -> N x 3 x H' x W' float32 as the net was trained on, in `deploy.onnx`'s order."""
        torch, wanted = self._torch, self._preprocessing
        height, width = image.shape[1:3]
        padded_height, padded_width = wanted.size_rule.padded_size(height, width)
        pixels = torch.from_numpy(image).to(self.device).float()  # (N, H, W, 3)
        if wanted.color_order == "BGR":
            pixels = pixels.flip(3)
        pixels = (pixels - pixels.new_tensor(wanted.mean)) * wanted.scale
        blob = pixels.permute(0, 3, 1, 2)  # (N, 3, H, W)
        return torch.nn.functional.pad(blob, (0, padded_width - width, 0, padded_height - height))


def _load_module(bundle: Bundle) -> Any:
    source = bundle.read_file(SOURCE_NAME)
    bundle.verify_files([WEIGHTS_NAME])
    path = bundle.path / SOURCE_NAME
    module = ModuleType("atrous_bundle_model")
    module.__file__ = str(path.absolute())
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # trusted: see the module docstring
        return module.load(bundle.locate_file(WEIGHTS_NAME)).eval()
    except Exception as error:  # whatever the bundle's code raises
        raise BackendError(f"{path} does not load: {type(error).__name__}: {error}") from error
