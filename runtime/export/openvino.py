"""A bundle's network for OpenVINO Model Server: `deploy.onnx` in its folder of versions, without the CRF."""

from __future__ import annotations

import json
from pathlib import Path

from ...bundle.files import prepare_folder, write_file
from ...bundle.folder import read_bundle
from ...errors import OutputError
from .triton_models import check_name

CONFIG = "config.json"


def export_openvino(
    source: str | Path, target: str | Path, *, name: str | None = None, precision: str = "fp32", replace: bool = False
) -> tuple[str, ...]:
    """Write `NAME/1/model.onnx` and `config.json`, and return their names; other models in the folder stay listed.

    Args:
        source: a bundle of any task.
        target: the folder of the models.
        name: the model's name; None for the bundle's.
        precision: "fp32", or one of the bundle's variants.
        replace: whether the model may be replaced.

    Raises:
        BundleError: if the source holds no network that takes images, or none in that precision.
        InputError: if the name is invalid.
        OutputError: if the model is there and is not to be replaced, or the folder cannot be written.
    """
    bundle = read_bundle(source)
    name = check_name(name or bundle.manifest.name)
    content = bundle.read_file(bundle.deploy_file(precision))
    folder = prepare_folder(target)
    graph = folder / name / "1" / "model.onnx"
    if graph.exists() and not replace:
        raise OutputError("is there already: give --force to replace it", path=graph)
    models = {**_read_models(folder / CONFIG), name: {"name": name, "base_path": f"/models/{name}"}}
    write_file(graph, content)
    listed = {"model_config_list": [{"config": model} for model in models.values()]}
    write_file(folder / CONFIG, (json.dumps(listed, indent=1) + "\n").encode())
    return graph.relative_to(folder).as_posix(), CONFIG


def _read_models(path: Path) -> dict[str, dict[str, object]]:
    """The models that a config.json lists: name -> settings."""
    if not path.exists():
        return {}
    try:
        return {
            entry["config"]["name"]: entry["config"] for entry in json.loads(path.read_bytes())["model_config_list"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError("is there and lists no models: choose another folder", path=path) from error
