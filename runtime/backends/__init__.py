"""Backends: one small protocol, one file each, chosen by name; none is imported before it is asked for.

| name          | runs                     | needs                  |
|---------------|--------------------------|------------------------|
| `onnxruntime` | the bundle's deploy.onnx | `pip install "atrous[cpu]"` (or `gpu`) |
| `torch`       | the bundle's model.py    | `pip install "atrous[torch]"`, and trust in the bundle |
| `fake`        | a formula                | nothing; for tests     |
"""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import BackendError
from .protocol import Array, Backend, TensorSpec, check_feeds

__all__ = ["BACKENDS", "Array", "Backend", "TensorSpec", "check_feeds", "open_backend"]

BACKENDS = ("onnxruntime", "torch", "fake")


def open_backend(
    name: str, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32"
) -> Backend:
    """Load a bundle's network.

    Args:
        name: one of `BACKENDS`.
        bundle: an opened bundle; the digests of the files used are checked here.
        device: "cpu" or "cuda".
        threads: threads of one run on the CPU; None leaves it to the backend.
        precision: "fp32", or one of the bundle's variants; what was asked for runs, or an error says why not.

    Raises:
        BackendError: if the name, the device or, for this backend, the precision is unknown, or the backend refuses
            the model.
        MissingDependencyError: if its library is not installed.
        BundleError: if a file it needs is missing or altered.
    """
    deploy = bundle.deploy
    if name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeBackend

        file = bundle.deploy_file(precision)
        return OnnxRuntimeBackend(bundle.read_file(file), device=device, threads=threads, path=bundle.path / file)
    if precision != "fp32":
        raise BackendError(f"the {name} backend runs fp32 only, not {precision}: use the onnxruntime backend")
    if name == "torch":
        from .torch import TorchBackend

        return TorchBackend(bundle, device=device, threads=threads)
    if name == "fake":
        from .fake import FakeBackend

        return FakeBackend(len(bundle.manifest.classes), input_name=deploy.input)
    raise BackendError(f'there is no backend "{name}"; there are {", ".join(BACKENDS)}')
