"""Checks a model repository of Triton without Triton: every config.pbtxt against Triton's own schema, and their joins.

Triton says of a typo only that a file failed to be read, and of a wrong join that a model is not available. The schema
is `ModelConfig` as NVIDIA compiles it into its client, `tritonclient`. Rules:

1. The text follows the schema; the name is the folder's; the folder has a version.
2. Every model of an ensemble's step exists; its maps name the model's inputs and outputs, and every required input.
3. A tensor of an ensemble has one source, which comes before its readers, and the data type and sizes of both ends.
4. The network's inputs and outputs are those of its ONNX file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...dependencies import import_optional
from ...errors import InputError
from .triton_models import CONFIG

_FREE = -1
#: ONNX Runtime's name of a type -> Triton's
_ONNX_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16"}


@dataclass(frozen=True)
class Fault:
    """A fault of a repository; `line` counts from 1, None for the whole file."""

    path: Path
    line: int | None
    text: str

    def __str__(self) -> str:
        """`path:line: text`."""
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.text}"


@dataclass(frozen=True)
class _Model:
    """A parsed configuration; `config` is a message of the schema."""

    path: Path
    text: str
    config: Any

    def fault(self, text: str, field: str = "", value: str = "") -> Fault:
        """A fault at the first line where a field has a string as its value."""
        pattern = re.compile(rf'\b{field}\s*:\s*"{re.escape(value)}"')
        found = (index for index, line in enumerate(self.text.splitlines(), 1) if field and pattern.search(line))
        return Fault(self.path, next(found, None), text)


def check_repository(folder: str | Path) -> list[Fault]:
    """The faults of all models in a repository.

    Raises:
        InputError: if the folder has no model.
        MissingDependencyError: if tritonclient is not installed.
    """
    paths = sorted(Path(folder).glob(f"*/{CONFIG}"))
    if not paths:
        raise InputError(f"{folder}: has no model: a model is a folder with a {CONFIG}")
    models, faults = {}, []
    for path in paths:
        parsed = _parse(path)
        if isinstance(parsed, Fault):
            faults.append(parsed)
        else:
            models[path.parent.name] = parsed
    for name, model in models.items():
        faults += _check_folder(name, model)
        if model.config.platform == "ensemble":
            faults += _check_ensemble(model, models)
        elif model.config.backend == "onnxruntime":
            faults += _check_graph(model)
    return faults


def _parse(path: Path) -> _Model | Fault:
    schema = import_optional("tritonclient.grpc").model_config_pb2
    from google.protobuf import text_format  # tritonclient needs it, too

    try:
        text = path.read_text(encoding="utf-8")
        return _Model(path, text, text_format.Parse(text, schema.ModelConfig()))
    except (OSError, UnicodeDecodeError) as error:
        return Fault(path, None, f"cannot be read: {error}")
    except text_format.ParseError as error:
        return Fault(path, error.GetLine(), re.sub(r"^\d+:\d+ : ", "", str(error)))


def _check_folder(name: str, model: _Model) -> Iterator[Fault]:
    if model.config.name not in ("", name):
        yield model.fault(f'the name "{model.config.name}" is not the folder\'s, "{name}"', "name", model.config.name)
    if not any(path.is_dir() and path.name.isdigit() for path in model.path.parent.iterdir()):
        yield model.fault('has no version: make a folder "1" beside it')


def _check_ensemble(ensemble: _Model, models: Mapping[str, _Model]) -> Iterator[Fault]:
    """Rules 2 and 3."""
    known = {tensor.name: (tensor, ensemble) for tensor in ensemble.config.input}
    for step in ensemble.config.ensemble_scheduling.step:
        model = models.get(step.model_name)
        if model is None:
            yield ensemble.fault(f'there is no model "{step.model_name}"', "model_name", step.model_name)
            continue
        inputs = {tensor.name: tensor for tensor in model.config.input}
        outputs = {tensor.name: tensor for tensor in model.config.output}
        for name in sorted(tensor.name for tensor in model.config.input if not tensor.optional):
            if name not in step.input_map:
                yield ensemble.fault(
                    f'the input "{name}" of "{step.model_name}" gets no tensor', "model_name", step.model_name
                )
        for key, value in sorted(step.input_map.items()):
            if key not in inputs:
                yield ensemble.fault(f'"{step.model_name}" has no input "{key}"; it has {_list(inputs)}', "key", key)
            elif value not in known:
                yield ensemble.fault(f'nothing before "{step.model_name}" gives the tensor "{value}"', "value", value)
            else:
                yield from _compare(ensemble, value, *known[value], inputs[key], model)
        for key, value in sorted(step.output_map.items()):
            if key not in outputs:
                yield ensemble.fault(f'"{step.model_name}" has no output "{key}"; it has {_list(outputs)}', "key", key)
            elif value in known:
                yield ensemble.fault(f'the tensor "{value}" has two sources', "value", value)
            else:
                known[value] = outputs[key], model
    for tensor in ensemble.config.output:
        if tensor.name not in known:
            yield ensemble.fault(f'no step gives the output "{tensor.name}"', "name", tensor.name)
        else:
            yield from _compare(ensemble, tensor.name, *known[tensor.name], tensor, ensemble)


def _compare(place: _Model, name: str, source: Any, giver: _Model, reader: Any, taker: _Model) -> Iterator[Fault]:
    """Compare both ends of a tensor: types, and sizes with the batch axis."""
    if source.data_type != reader.data_type:
        ends = [type(source).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[t].name for t in (
            source.data_type, reader.data_type)]  # fmt: skip
        yield place.fault(f'the tensor "{name}" is given as {ends[0]} and taken as {ends[1]}', "value", name)
    given, taken = _shape(source, giver), _shape(reader, taker)
    if not _fits(given, taken):
        yield place.fault(f'the tensor "{name}" is given as {given} and taken as {taken}', "value", name)


def _shape(tensor: Any, model: _Model) -> list[int]:
    return [*([_FREE] if model.config.max_batch_size > 0 else []), *tensor.dims]


def _fits(first: Sequence[object], second: Sequence[object]) -> bool:
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(_FREE in pair or pair[0] == pair[1] for pair in pairs)


def _check_graph(model: _Model) -> Iterator[Fault]:
    """Rule 4."""
    onnxruntime = import_optional("onnxruntime")
    for graph in sorted(model.path.parent.glob("*/model.onnx")):
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        for ends, tensors in ((session.get_inputs(), model.config.input), (session.get_outputs(), model.config.output)):
            found = {end.name: end for end in ends}
            for tensor in tensors:
                end = found.get(tensor.name)
                if end is None:
                    yield model.fault(
                        f'{graph.name} has no "{tensor.name}"; it has {_list(found)}', "name", tensor.name
                    )
                    continue
                shape = [side if isinstance(side, int) else _FREE for side in end.shape]
                kind = type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type]
                if kind.name != _ONNX_TYPES.get(end.type) or not _fits(shape, _shape(tensor, model)):
                    yield model.fault(
                        f'"{tensor.name}" is {kind.name} {_shape(tensor, model)}, in {graph.name} {end.type} {shape}',
                        "name",
                        tensor.name,
                    )


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
