"""A bundle without its network, where another process runs that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bundle import Bundle, read_bundle
from ...errors import BackendError
from ..loading import load
from ..segmenter import Segmenter
from .protocol import Array, Backend, TensorSpec

_OF_NETWORKS = ("backend", "device", "precision", "options")  # arguments of `load`


class AbsentNetwork(Backend):
    """Stands for a network whose scores come from elsewhere."""

    name = "absent"
    device = "cpu"

    def __init__(self, bundle: Bundle) -> None:
        deploy, labels = bundle.deploy, len(bundle.manifest.classes)
        shape = ("batch", "height", "width") if deploy.head == "labels" else ("batch", labels, "height", "width")
        dtype = "uint8" if deploy.head == "labels" else "float32"
        self.inputs = (TensorSpec(deploy.input, "uint8", ("batch", "height", "width", 3)),)
        self.outputs = (TensorSpec(deploy.head, dtype, shape),)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Refuse: there is no network."""
        raise BackendError("this process has no network")

    def close(self) -> None:
        """Do nothing."""


def load_without_network(bundle: str | Path, **load_options: Any) -> Segmenter:
    """Load a bundle for everything but its network; arguments and errors as of `runtime.load`."""
    own = {name: value for name, value in load_options.items() if name not in _OF_NETWORKS}
    return load(bundle, AbsentNetwork(read_bundle(bundle)), **own)
