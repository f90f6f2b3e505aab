"""`load`: a bundle's folder to a `Segmenter`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..bundle.folder import Bundle, read_bundle
from ..dependencies import import_crf
from ..errors import BundleError, InputError
from .backends import Backend, open_backend
from .backends.absent import AbsentNetwork
from .backends.preprocessed import PixelRule, change_preprocessing, open_preprocessed
from .crf_step import CrfDevice
from .resizing import SizeOption, choose_sizing
from .segmenter import Segmenter

if TYPE_CHECKING:
    from .crf import CrfParameters

_OF_NETWORKS = ("backend", "device", "precision", "options")  # arguments of `load`


def load(
    path: str | Path,
    backend: str | Backend = "onnxruntime",
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    options: Mapping[str, object] | None = None,
    crf: Literal["auto"] | bool | CrfParameters = "auto",
    crf_shortcuts: Mapping[str, Any] | None = None,
    crf_device: CrfDevice = "cpu",
    size: SizeOption = None,
    max_side: int | None = None,
    memory_bytes: int | None = None,
    pixels: PixelRule | None = None,
) -> Segmenter:
    """Load a bundle.

    Args:
        path: the bundle's folder.
        backend: one of `backends.BACKENDS`, or an open backend, which the segmenter then closes. "torch" executes the
            bundle's own `model.py`: use it only with bundles from a source you trust.
        device: "cpu" or "cuda"; None for the backend's default.
        threads: threads of the network and of the CRF; None for one per core.
        precision: "fp32", or one of the bundle's variants, such as "fp16" or "int8".
        options: the backend's own options by name; see `backends.open_backend`.
        crf: "auto" uses the bundle's CRF parameters if it has any and its head gives scores; True requires them; False
            turns the CRF off; `CrfParameters` replace the bundle's.
        crf_shortcuts: approximations that make the CRF faster, such as `crf.FAST` or {"storage": "float16"}; None for
            the exact CRF. docs/crf-performance.md lists their speed, and the share of labels that they change.
        crf_device: "cuda" runs the CRF on an NVIDIA GPU, with the CPU's result in every bit; not with shortcuts.
        size: (height, width) in pixels that images are resized to for the network, or "native" for their own size;
            None for the bundle's default, which is the size the net was made for, or the images' own for nets such as
            DeepLab's. Scores are brought back to the image's size before the CRF. docs/sizes.md explains it.
        max_side: shrink images for the network until their longer side has at most this many pixels; excludes `size`.
        memory_bytes: the most memory that this process may use: images that need more are labeled in tiles; None for
            three quarters of the free memory.
        pixels: another preprocessing than the bundle's, to try it; runs `model.onnx` (docs/preprocessing.md).

    Raises:
        BundleError: if the bundle is missing, altered, or not what its manifest says.
        BackendError: if the backend is unknown, not installed, or refuses the model; if there is no GPU for the CRF.
        InputError: if a CRF is requested and the bundle has no parameters or no scores for it, or an option or a
            shortcut is unknown, or the network does not take the size.
        MissingDependencyError: if the CRF is on and its extension is not compiled.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    while True:
        bundle = read_bundle(path)
        if pixels is not None:
            bundle = change_preprocessing(bundle, pixels)
        choices: dict[str, Any] = {"crf": _choose_crf(bundle, crf), "crf_shortcuts": crf_shortcuts, "threads": threads}
        choices["crf_device"] = crf_device
        choices |= {"sizing": choose_sizing(bundle.preprocessing, size, max_side), "memory_bytes": memory_bytes}
        if not isinstance(backend, str):
            if pixels is not None:
                raise InputError("an open backend has its preprocessing built in: pass the backend's name")
            return Segmenter(bundle, backend, precision=precision, **choices)
        try:
            open_network = open_backend if pixels is None else open_preprocessed
            network = open_network(
                backend, bundle, device=device, threads=threads, precision=precision, options=options
            )
        except BundleError:
            if bundle.was_replaced():  # read anew: what was read may be of two bundles
                continue
            raise
        try:
            return Segmenter(bundle, network, precision=precision, **choices)
        except BaseException:
            network.close()
            raise


def _choose_crf(bundle: Bundle, choice: Literal["auto"] | bool | CrfParameters) -> CrfParameters | None:
    section = bundle.manifest.crf
    if choice is False or (choice == "auto" and (section is None or bundle.deploy.head == "labels")):
        return None
    if choice != "auto" and choice is not True:
        return choice
    if section is None:
        raise InputError(f"{bundle.path}: the bundle has no CRF parameters: pass some, or turn the CRF off")
    import_crf()  # report a missing extension now, not at the first image
    return section


def load_without_network(path: str | Path, **load_options: Any) -> Segmenter:
    """Load a bundle for everything but its network; arguments and errors as of `load`."""
    own = {name: value for name, value in load_options.items() if name not in _OF_NETWORKS}
    return load(path, AbsentNetwork(read_bundle(path)), **own)
