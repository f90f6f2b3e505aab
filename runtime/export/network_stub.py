"""A backend for a network that another process runs: what comes before and after it is atrous's own code."""

from __future__ import annotations

from collections.abc import Mapping

from ...bundle.folder import Bundle
from ...bundle.manifest import GraphBlob
from ...errors import BackendError
from ..backends.protocol import Array, Backend, TensorSpec


class ElsewhereBackend(Backend):
    """The inputs and outputs of a bundle's network; it cannot run."""

    name = "elsewhere"
    device = "cpu"

    def __init__(self, bundle: Bundle):
        """Take the inputs and outputs from the manifest."""
        facts = bundle.graph_facts()
        self.inputs = tuple(_describe(name, blob) for name, blob in facts.inputs.items())
        self.outputs = tuple(_describe(name, blob) for name, blob in facts.outputs.items())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Refuse to run."""
        raise BackendError("the network runs elsewhere: the image is too large for it in one piece; send a smaller one")

    def close(self) -> None:
        """Do nothing."""


def _describe(name: str, blob: GraphBlob) -> TensorSpec:
    return TensorSpec(name, blob.type, tuple(f"d{axis}" if side < 0 else side for axis, side in enumerate(blob.shape)))
