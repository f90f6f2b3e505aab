"""The models of an exported Triton ensemble: their configurations and files.

Fields are those of Triton's `ModelConfig` (model_config.proto of triton-inference-server/common).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...bundle.folder import Bundle
from ...bundle.manifest import MANIFEST_NAME, GraphBlob
from ...errors import BundleError, InputError
from ..backends import find_safe_level
from ..resizing import SizeOption, choose_sizing
from .text_format import Value, Word
from .triton_engine import read_engine
from .triton_step import PREPARED, RAW

CONFIG = "config.pbtxt"
LABELS = "labels.txt"
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "bytes": "TYPE_STRING"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_WARM_SIDE = 321  # pixels of the warm-up's image, for nets that were made for no size
_NO_OPTIMIZATION = 2  # Triton's number for ONNX Runtime without graph optimizations

_MODEL_SOURCE = '''"""The step "{role}" of {name}, for Triton's Python backend; written by `atrous export triton`."""

from pathlib import Path

import triton_python_backend_utils

try:
    from atrous.runtime.export.triton_step import TritonStep
except ImportError as error:
    raise ImportError(f"Triton's Python cannot import atrous ({{error}}): use the repository's Dockerfile") from error


class TritonPythonModel(TritonStep):
    triton = triton_python_backend_utils
    folder = Path(__file__).parent
'''


@dataclass(frozen=True)
class TritonOptions:
    """The settings that a bundle is served with.

    Attributes:
        name: the ensemble's name; None for the bundle's.
        network: Triton's backend of the network; "tensorrt" takes the newest engine of `atrous build`.
        precision: "fp32", or one of the bundle's variants.
        crf: whether to run the CRF, if the bundle has parameters for it.
        size: (height, width) in pixels, "native", or None for the bundle's default, as for `runtime.load`.
        max_side: as for `runtime.load`.
        batch: the most images in one run of the network.
        delay_us: microseconds that an image may wait for others of its size.
        queue: the most requests that wait for a step; further ones are refused.
        instances: processes of each Python step.
        threads: CPU threads of the CRF in each of them.
    """

    name: str | None = None
    network: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    precision: str = "fp32"
    crf: bool = True
    size: SizeOption = None
    max_side: int | None = None
    batch: int = 8
    delay_us: int = 1000
    queue: int = 64
    instances: int = 4
    threads: int = 1


@dataclass(frozen=True)
class Model:
    """A folder of the repository.

    Attributes:
        name: its name, also the folder's.
        config: the fields of its config.pbtxt.
        files: path in the folder -> content.
    """

    name: str
    config: Mapping[str, Value]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """Facts that all models of an ensemble share.

    Attributes:
        bundle: the bundle.
        options: how Triton serves it.
        name: of the ensemble.
        network: configuration and file of the network.
        batch: the most images in a run of the network; 0 for a graph of exactly one.
        has_crf: whether the CRF runs.
        resizes: whether images are resized for the network.
    """

    bundle: Bundle
    options: TritonOptions
    name: str
    batch: int
    has_crf: bool
    resizes: bool

    def describe(self, name: str, dtype: str, *dims: int) -> dict[str, Value]:
        """An input or output; `dims` without the batch axis, -1 is a free size."""
        return {"name": name, "data_type": Word(TYPES[dtype]), "dims": dims if self.batch else (1, *dims)}

    @property
    def image(self) -> dict[str, Value]:
        """The image of a request."""
        return self.describe("image", "uint8", -1, -1, 3)

    @property
    def results(self) -> list[dict[str, Value]]:
        """The outputs of the last step."""
        results = [self.describe("labels", "uint8", -1, -1), self.describe("labels_png", "bytes", 1)]
        if self.bundle.deploy.head != "labels":
            results.append(self.describe("probabilities", "float32", len(self.bundle.manifest.classes), -1, -1))
        return results

    def make_queue(self, delay_us: int) -> dict[str, Value]:
        """The bounded queue of a step; Triton has none for graphs without a free batch axis."""
        if not self.batch:
            return {}
        policy: dict[str, Value] = {"timeout_action": Word("REJECT"), "max_queue_size": self.options.queue}
        return {"dynamic_batching": {"max_queue_delay_microseconds": delay_us, "default_queue_policy": policy}}


def check_name(name: str) -> str:
    """The name; InputError if it cannot name a model and its folder."""
    if not _NAME.fullmatch(name):
        raise InputError(f'"{name}" cannot name a model: give another with --name (letters, digits, ._-)')
    return name


def make_models(bundle: Bundle, options: TritonOptions) -> list[Model]:
    """The models of a bundle's ensemble, the ensemble last; raises as `export_triton`."""
    manifest, deploy = bundle.manifest, bundle.deploy
    has_crf = options.crf and manifest.crf is not None and deploy.head != "labels"
    sizing = choose_sizing(bundle.preprocessing, options.size, options.max_side)
    resizes = sizing.target is not None or sizing.max_side is not None
    facts = bundle.graph_facts(options.precision)
    name = check_name(options.name or manifest.name)
    content, batch = _read_network(bundle, options)
    plan = _Plan(bundle, options, name, batch, has_crf, resizes)
    needs_steps = resizes or deploy.head != "labels"
    network = _make_network(plan, content, f"{name}-network" if needs_steps else name)
    if not needs_steps:
        return [network]
    prepare = (
        [_make_step(plan, "prepare", [plan.image], _list_tensors(plan, facts.inputs, PREPARED))] if resizes else []
    )
    finish = _make_step(plan, "finish", [plan.image, *_list_tensors(plan, facts.outputs, RAW)], plan.results)
    return [*prepare, network, finish, _make_ensemble(plan)]


def _read_network(bundle: Bundle, options: TritonOptions) -> tuple[bytes, int]:
    """The network's file, and the most images of one run: 0 for a graph of exactly one."""
    facts = bundle.graph_facts(options.precision)
    counts = {blob.shape[0] for blob in (*facts.inputs.values(), *facts.outputs.values())}
    if counts - {-1, 1}:
        raise BundleError(
            f"{bundle.deploy_file(options.precision)} takes {max(counts)} images a run and no other number: convert "
            "the net without --batch",
            path=bundle.path,
        )
    batch = options.batch if counts == {-1} else 0
    if options.network == "tensorrt":
        content, most = read_engine(bundle, options.precision)
        return content, min(batch, most)
    return bundle.read_file(bundle.deploy_file(options.precision)), batch


def _make_network(plan: _Plan, content: bytes, name: str) -> Model:
    """The network as a model of its own."""
    bundle, options = plan.bundle, plan.options
    facts = bundle.graph_facts(options.precision)
    settings: dict[str, Value] = {**plan.make_queue(options.delay_us), "model_warmup": _make_warm_up(plan)}
    if options.network == "onnxruntime" and find_safe_level(bundle, options.precision) == "disabled":
        settings["optimization"] = {"graph": {"level": _NO_OPTIMIZATION}}
    file = "model.onnx" if options.network == "onnxruntime" else "model.plan"
    config: dict[str, Value] = {
        "name": name,
        "backend": options.network,
        "max_batch_size": plan.batch,
        "input": _list_tensors(plan, facts.inputs),
        "output": _list_tensors(plan, facts.outputs),
        **settings,
    }
    return Model(name, config, {f"1/{file}": content})


def _make_step(plan: _Plan, role: str, inputs: list[dict[str, Value]], outputs: list[dict[str, Value]]) -> Model:
    """A Python step: "prepare" or "finish"."""
    options, name = plan.options, f"{plan.name}-{role}"
    parameters = {"role": role, "crf": "on" if plan.has_crf else "off", "threads": str(options.threads)}
    if options.size is not None:
        parameters["size"] = options.size if isinstance(options.size, str) else "x".join(map(str, options.size))
    if options.max_side is not None:
        parameters["max_side"] = str(options.max_side)
    config: dict[str, Value] = {
        "name": name,
        "backend": "python",
        "max_batch_size": min(plan.batch, 1),
        "input": inputs,
        "output": outputs,
        "instance_group": {"kind": Word("KIND_CPU"), "count": options.instances},
        **plan.make_queue(0),
        "parameters": _list_parameters(parameters),
    }
    source = _MODEL_SOURCE.format(role=role, name=plan.name).encode()
    return Model(name, config, {"1/model.py": source, f"1/{MANIFEST_NAME}": plan.bundle.manifest.to_json()})


def _make_ensemble(plan: _Plan) -> Model:
    """The ensemble: the image through all steps; its labels file and parameters describe the classes."""
    manifest, deploy = plan.bundle.manifest, plan.bundle.deploy
    raw, prepared = RAW + deploy.output, PREPARED + deploy.input
    steps = [
        _make_map(f"{plan.name}-network", {deploy.input: prepared if plan.resizes else "image"}, {deploy.output: raw}),
        _make_map(
            f"{plan.name}-finish",
            {"image": "image", raw: raw},
            {str(entry["name"]): str(entry["name"]) for entry in plan.results},
        ),
    ]
    if plan.resizes:
        steps.insert(0, _make_map(f"{plan.name}-prepare", {"image": "image"}, {prepared: prepared}))
    results = [{**entry, "label_filename": LABELS} if entry["name"] == "labels" else entry for entry in plan.results]
    about = {"classes": json.dumps(manifest.classes), "palette": json.dumps(manifest.palette)}
    config: dict[str, Value] = {
        "name": plan.name,
        "platform": "ensemble",
        "max_batch_size": min(plan.batch, 1),
        "input": [plan.image],
        "output": results,
        "ensemble_scheduling": {"step": steps},
        "parameters": _list_parameters(about),
    }
    # Triton wants the folder of the version, which an ensemble has no files for.
    return Model(
        plan.name, config, {LABELS: "".join(f"{name}\n" for name in manifest.classes).encode(), "1/.keep": b""}
    )


def _make_map(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Value]:
    """A step of the ensemble: names of the model -> names in the ensemble."""
    pairs = {"input_map": inputs, "output_map": outputs}
    maps = {part: [{"key": key, "value": value} for key, value in names.items()] for part, names in pairs.items()}
    return {"model_name": model, "model_version": -1, **maps}


def _list_tensors(plan: _Plan, blobs: Mapping[str, GraphBlob], prefix: str = "") -> list[dict[str, Value]]:
    return [plan.describe(prefix + name, blob.type, *blob.shape[1:]) for name, blob in blobs.items()]


def _list_parameters(texts: Mapping[str, str]) -> list[Value]:
    return [{"key": key, "value": {"string_value": text}} for key, text in texts.items()]


def _make_warm_up(plan: _Plan) -> dict[str, Value]:
    """A black image before the first request, of the size that the net was made for."""
    preprocessing, facts = plan.bundle.preprocessing, plan.bundle.graph_facts(plan.options.precision)
    size = preprocessing.usual_size or (_WARM_SIDE, _WARM_SIDE)
    (name, blob), *_ = facts.inputs.items()
    tensor = plan.describe(name, blob.type, *size, blob.shape[-1])
    value = {"data_type": tensor["data_type"], "dims": tensor["dims"], "zero_data": True}
    return {"name": "black", "batch_size": min(plan.batch, 1), "inputs": {"key": name, "value": value}}
