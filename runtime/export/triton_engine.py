"""A stored TensorRT engine as Triton's tensorrt backend takes it."""

from __future__ import annotations

from ...bundle.folder import Bundle


def read_engine(bundle: Bundle, precision: str) -> tuple[bytes, int]:
    """The newest engine of a bundle's network that this installation signed, and the most images of one run.

    Raises:
        EngineError: if none is built, or it is altered or foreign.
    """
    from ..backends.tensorrt.store import FOLDER_NAME, EngineStore

    sha256 = bundle.manifest.files[bundle.deploy_file(precision)].sha256
    store = EngineStore(bundle.path / FOLDER_NAME)
    engine = store.choose({"onnx.sha256": sha256, "precision.name": precision})
    profiles = engine.fields.get("profiles")
    assert isinstance(profiles, list)
    most = max((profile[bundle.deploy.input]["max"][0] for profile in profiles), default=1)
    return store.read_plan(engine), most
