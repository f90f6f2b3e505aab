"""The backend of a bundle whose network runs in another process."""

from __future__ import annotations

from collections.abc import Mapping

from ...bundle import Bundle
from ...errors import BackendError
from .protocol import Array, Backend, TensorSpec


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
