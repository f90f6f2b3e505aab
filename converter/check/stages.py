"""The stages of a conversion that compute a net's blobs: the torch module and the ONNX file of a bundle.

Both return blobs by recording key `<layer>:<top>`, through the blob table in model.onnx's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from ...bundle.section import Section, describe_fault
from ...dependencies import import_optional
from ...errors import VerificationInputError
from ..export.onnx_export import BLOB_TABLE
from .compare import Array


class _BlobEntry(Section):
    """A row of the blob table, as `onnx_export.blob_table` writes it."""

    key: str
    value: str
    layer: str
    type: str
    module: str
    index: NonNegativeInt
    per_bottom: bool
    chooses: bool = False
    random: bool = False
    feeds: list[str]


def follow_choices(
    module: Any,
    table: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Array],
    computed: Mapping[str, Array],
    reference: Mapping[str, Array],
) -> dict[str, Array]:
    """The reference, where layers that choose boxes, and the layers after them, are given the other stage's bottoms.

    A rounding error of a score may change the number and the order of the boxes, and with them every blob after. Random
    blobs are taken as they are, so that the layers after them are compared.

    Args:
        module: computes the reference.
        table: the net's blob table (see `onnx_export.blob_table`).
        inputs: input name -> array.
        computed: the other stage's blobs, by recording key.
        reference: the blobs of `module`.
    """
    import torch

    followed: dict[str, Array] = {}
    for entry in table:
        if entry["key"] not in computed:
            continue
        if entry.get("random", False):
            followed[entry["key"]] = computed[entry["key"]]
            continue
        if not entry.get("chooses", False) and followed.keys().isdisjoint(entry["feeds"]):
            continue
        feeds = [computed[key] if key in computed else inputs[key] for key in entry["feeds"]]
        chosen = feeds[entry["index"] : entry["index"] + 1] if entry["per_bottom"] else feeds
        with torch.no_grad():
            result = module.get_submodule(entry["module"])(*(torch.from_numpy(np.array(feed)) for feed in chosen))
        own = result[0 if entry["per_bottom"] else entry["index"]] if isinstance(result, tuple) else result
        followed[entry["key"]] = own.numpy()
    return {**reference, **followed}


class TorchStage:
    """The bundle's `model.py` with its weights; executes `source`, the file's bytes whose digest was checked."""

    name = "torch"

    def __init__(self, bundle: Path, source: bytes, table: Sequence[Mapping[str, Any]]) -> None:
        import_optional("torch")
        import_optional("safetensors")
        code = ModuleType("atrous_bundle_model")
        code.__file__ = str(bundle / "model.py")
        # Not through importlib, which would run an unlisted __pycache__/model.*.pyc instead.
        exec(compile(source, code.__file__, "exec"), code.__dict__)
        self._module = code.load(bundle / "model.safetensors")
        self._table = table

    @property
    def module(self) -> Any:
        """The torch module."""
        return self._module

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every blob by its recording key; raises VerificationInputError if the net does not take these sizes."""
        import torch

        by_module: dict[str, list[Mapping[str, Any]]] = {}
        for entry in self._table:
            by_module.setdefault(entry["module"], []).append(entry)
        results: dict[str, list[Any]] = {name: [] for name in by_module}

        def record(name: str, _module: Any, _arguments: Any, result: Any) -> None:
            values = result if isinstance(result, tuple) else (result,)
            results[name].append([value.detach().clone() for value in values])  # a later layer may work in place

        handles = [self._module.get_submodule(name).register_forward_hook(partial(record, name)) for name in by_module]
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs.values()]
        try:
            with torch.no_grad():
                self._module(*tensors)
        except (RuntimeError, ValueError, IndexError) as error:  # torch's answers to sizes that do not fit
            raise _rejected(inputs, error) from error
        finally:
            for handle in handles:
                handle.remove()
        blobs: dict[str, Array] = {}
        for name, entries in by_module.items():
            for number, entry in enumerate(entries):
                call, index = (number, 0) if entry["per_bottom"] else (0, entry["index"])
                blobs[entry["key"]] = results[name][call][index].numpy()
        return blobs


class OnnxStage:
    """An ONNX file written by `export_onnx`, with every blob made an output in memory.

    Attributes:
        name: the file's name.
        table: the net's blob table (see `onnx_export.blob_table`).
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        import onnx
        import onnxruntime

        from .onnx_reading import parse_onnx

        self.name = path.name
        model = parse_onnx(path.read_bytes() if content is None else content, path)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        if BLOB_TABLE not in properties:
            raise VerificationInputError(f"{path}: has no table of the net's blobs; convert the net again")
        self.table = _parse_table(properties[BLOB_TABLE], path)
        known = {output.name for output in model.graph.output}
        for entry in self.table:
            if entry["value"] not in known:
                known.add(entry["value"])
                model.graph.output.append(onnx.ValueInfoProto(name=entry["value"]))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Fusions would change or remove the very blobs that are compared.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        #: a part of a net may lack some of its inputs
        self._inputs = {value.name for value in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every blob by its recording key; raises VerificationInputError if the net does not take these sizes."""
        from onnxruntime.capi import onnxruntime_pybind11_state as ort

        names = sorted({entry["value"] for entry in self.table})
        try:
            arrays = self._session.run(names, {name: inputs[name] for name in inputs if name in self._inputs})
        except (ort.Fail, ort.InvalidArgument, ort.NotImplemented, ort.RuntimeException) as error:
            raise _rejected(inputs, error) from error
        values = dict(zip(names, arrays, strict=True))
        return {entry["key"]: values[entry["value"]] for entry in self.table}


def _parse_table(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        entries = TypeAdapter(Annotated[list[_BlobEntry], MinLen(1)]).validate_json(text)
    except ValidationError as error:
        raise VerificationInputError(
            f"{path}: the table of the net's blobs is invalid: {describe_fault(error)}; convert the net again"
        ) from error
    return [entry.model_dump() for entry in entries]


def _rejected(inputs: Mapping[str, Array], error: Exception) -> VerificationInputError:
    """One line from a library's error about sizes that the net cannot take."""
    shapes = ", ".join(f"{name} of {'x'.join(map(str, array.shape))}" for name, array in inputs.items())
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return VerificationInputError(
        f"the net does not run on {shapes}: {reason}; give sizes that it takes, such as those it was converted at"
    )
