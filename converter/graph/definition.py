"""From a read prototxt to a :class:`NetDefinition`: which layers run, what a caller supplies, what is left out and why.

Rules, numbered as in the code:
1. NetState decides which layers exist in this phase.
2. Data layers become inputs, one for each top that something reads; a Python layer without bottoms is one of them.
   Where this phase has no data layer for a blob, the one of the other phase gives its name and size.
3. Losses, measurements and file writers are dropped; their bottoms become outputs.
4. Layers that only prepare labels for dropped layers are dropped with them.
5. A type with neither role nor operator is unsupported; all are listed at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import NetError
from ..dialects.detect import Detection, detect_in_text
from ..dialects.known import Dialect, find_dialect
from ..files.prototxt import Prototxt
from ..layers import find_operator, registered_name, registered_types
from .build import InputTop, LayerEntry, NetDefinition
from .crop_rule import find_crop_rule
from .net import DroppedLayer, Shape
from .roles import DATA_SOURCES, PYTHON_LAYER, TRAINING_ONLY
from .select import filter_layers


def define_net(
    prototxt: Prototxt,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    dialect: str | None = None,
    blob_counts: Mapping[str, int] | None = None,
    already_filtered: bool = False,
) -> NetDefinition:
    """Decide what each layer of a file is to the converted net.

    Args:
        prototxt: the read file.
        phase: TEST or TRAIN.
        level: NetState level.
        stages: NetState stages.
        dialect: overrides the dialect the file shows.
        blob_counts: layer name -> number of blobs in the weights, where known.
        already_filtered: the net was saved by Caffe, which leaves only layers of the phase it ran in; rule 1 is off.

    Raises:
        NetError: contradicting rules, both input_dim and input_shape where the dialect rejects that, an unknown
            dialect, or one that does not read the file's syntax.
    """
    if dialect is not None:
        detection = Detection(dialect, ("given by the caller",))
    else:
        detection = detect_in_text(prototxt.forks, prototxt.format)
    found = find_dialect(detection.name, prototxt.format)
    kept: Iterable[tuple[int, Any]] = enumerate(prototxt.net.layer)
    dropped: list[DroppedLayer] = []
    if not already_filtered:  # rule 1
        filtered = filter_layers(prototxt, phase=phase, level=level, stages=stages)
        kept = filtered.kept
        dropped = [DroppedLayer(layer.name, layer.type, layer.line, layer.reason) for layer in filtered.dropped]
    definition = _Definer(prototxt, kept, dropped, found).define(detection.evidence, dict(blob_counts or {}))
    crop_rule = find_crop_rule(prototxt.net.layer, found, given=dialect is not None)
    return replace(definition, crop_rule=crop_rule, phase=phase)


class _Definer:
    def __init__(
        self,
        prototxt: Prototxt,
        kept: Iterable[tuple[int, Any]],
        filtered: Iterable[DroppedLayer],
        dialect: Dialect,
    ) -> None:
        self.prototxt, self.dialect = prototxt, dialect
        self.entries = [LayerEntry(message, prototxt.lines[index] or None) for index, message in kept]
        self.dropped = list(filtered)
        self.silenced: set[str] = set()
        self.unsupported: list[tuple[str, str, int | None, str]] = []
        self.sources: list[InputTop] = legacy_inputs(prototxt.net, dialect)
        self.label_tops: set[str] = set()
        self.transform: Any = None

    def define(self, evidence: tuple[str, ...], blob_counts: dict[str, int]) -> NetDefinition:
        running = [entry for entry in self.entries if not self._take_source(entry)]
        running = self._drop_training(running)
        running = self._drop_label_branches(running)
        for entry in running:
            self._check_supported(entry)
        read = {name for entry in running for name in entry.message.bottom}
        self._borrow_sources(running, read)
        declared = {source.top for source in self.sources if source.shape is not None}
        inputs = [
            source
            for source in self.sources
            # an `input:` without a shape beside a layer that gives one is dropped, as Caffe drops it
            if self._is_wanted(source, read) and not (source.shape is None and source.top in declared)
        ]
        return NetDefinition(
            name=self.prototxt.net.name,
            input_tops=tuple(inputs),
            entries=tuple(running),
            dropped=tuple(self.dropped),
            unsupported=tuple(self.unsupported),
            silenced=frozenset(self.silenced),
            dialect=self.dialect.name,
            dialect_evidence=evidence,
            warnings=tuple(self.prototxt.warnings),
            blob_counts=blob_counts,
            transform=self.transform,
            format=self.prototxt.format,
        )

    def _borrow_sources(self, running: Sequence[LayerEntry], read: set[str]) -> None:
        """Rule 2, second sentence."""
        written = {top for entry in running for top in entry.message.top} | {source.top for source in self.sources}
        for index, message in enumerate(self.prototxt.net.layer):
            if message.type not in DATA_SOURCES or not (read - written).intersection(message.top):
                continue
            line = self.prototxt.lines[index] or None
            if self.transform is None and message.HasField("transform_param"):
                self.transform = message.transform_param
            for top, shape in zip(message.top, source_shapes(message), strict=True):
                if top in read - written:
                    self.sources.append(InputTop(top, shape, message.name, message.type, line))
                    written.add(top)

    def _drop(self, entry: LayerEntry, reason: str) -> None:
        self.dropped.append(DroppedLayer(entry.message.name, entry.message.type, entry.line, reason))

    def _take_source(self, entry: LayerEntry) -> bool:
        """Rule 2."""
        message = entry.message
        is_python_source = message.type == PYTHON_LAYER and not message.bottom
        if message.type not in DATA_SOURCES and not is_python_source:
            return False
        shapes = source_shapes(message)
        if message.HasField("transform_param") and self.transform is None:
            self.transform = message.transform_param
        for index, (top, shape) in enumerate(zip(message.top, shapes, strict=True)):
            self.sources.append(InputTop(top, shape, message.name, message.type, entry.line))
            if message.type != "Input" and index > 0 and top != "data_dim":
                self.label_tops.add(top)
        return True

    @staticmethod
    def _is_wanted(source: InputTop, read: set[str]) -> bool:
        return source.top in read or source.type in ("Input", "input")

    def _drop_training(self, entries: list[LayerEntry]) -> list[LayerEntry]:
        """Rule 3."""
        running = []
        last_read = {
            name: position
            for position, entry in enumerate(entries)
            if entry.message.type not in TRAINING_ONLY
            for name in entry.message.bottom
        }
        for position, entry in enumerate(entries):
            message = entry.message
            reason = TRAINING_ONLY.get(message.type)
            own = set(message.top) - set(message.bottom)
            used = sorted(name for name in own if last_read.get(name, -1) > position)
            if reason is None:
                running.append(entry)
            elif used:
                self.unsupported.append(
                    (
                        message.name,
                        message.type,
                        entry.line,
                        f'a training layer, but its top "{used[0]}" is read by the net',
                    )
                )
                running.append(entry)
            else:
                if message.type == "Silence":
                    self.silenced.update(message.bottom)
                self._drop(entry, reason)
        return running

    def _drop_label_branches(self, entries: list[LayerEntry]) -> list[LayerEntry]:
        """Rule 4."""
        labels = set(self.label_tops)
        branch = []
        needed: set[str] = set()
        for entry in entries:
            if entry.message.bottom and labels.issuperset(entry.message.bottom):
                labels.update(entry.message.top)
                branch.append(entry)
            else:
                needed.update(entry.message.bottom)
        dropped: set[int] = set()
        for entry in reversed(branch):
            if needed.isdisjoint(entry.message.top):
                dropped.add(id(entry))
                self._drop(entry, "prepares labels for layers that only training needs")
            else:
                needed.update(entry.message.bottom)
        return [entry for entry in entries if id(entry) not in dropped]

    def _check_supported(self, entry: LayerEntry) -> None:
        """Rule 5."""
        message = entry.message
        if find_operator(registered_name(message)) is not None or (message.type in TRAINING_ONLY):
            return
        self.unsupported.append((message.name, message.type, entry.line, _why_unsupported(message)))


def _why_unsupported(message: Any) -> str:
    if message.type == PYTHON_LAYER:
        param = message.python_param
        return (
            f"arbitrary code ({param.module}.{param.layer}); register a conversion as "
            f'"{registered_name(message)}", or cut the net before it'
        )
    near = difflib.get_close_matches(message.type, registered_types(), 1)
    return f"unknown type; did you mean {near[0]}?" if near else "unknown type"


def legacy_inputs(net: Any, dialect: Dialect) -> list[InputTop]:
    """The `input:` fields of a net with their `input_dim` or `input_shape`, whose counts the reader has checked.

    Raises:
        NetError: there are both, and the dialect rejects that.
    """
    names, dims, shapes = list(net.input), list(net.input_dim), list(net.input_shape)
    if not names:
        return []
    if dims and shapes:
        if not dialect.shape_before_dims:
            raise NetError("the net gives both input_dim and input_shape; keep one of them")
        dims = []
    tops: list[InputTop] = []
    for index, name in enumerate(names):
        shape: Shape | None = None
        if dims:
            shape = tuple(dims[4 * index : 4 * index + 4])
        elif shapes:
            shape = tuple(shapes[index].dim)
        tops.append(InputTop(name, shape, None, "input", None))
    return tops


def source_shapes(message: Any) -> tuple[Shape | None, ...]:
    """Shape of each top of a data layer as far as the file tells, batch 1 where the batch is the trainer's choice."""
    tops = len(message.top)
    if message.type == "Input":
        declared: list[Shape | None] = [tuple(shape.dim) for shape in message.input_param.shape]
        if len(declared) not in (0, 1, tops):
            raise NetError(f"gives {len(declared)} shapes for {tops} tops; give one, or one each", layer=message.name)
        return tuple(declared) if len(declared) == tops else tuple((declared or [None]) * tops)
    if message.type == "MemoryData":
        param = message.memory_data_param
        data: Shape | None = (param.batch_size, param.channels, param.height, param.width)
        known = 0 not in (param.batch_size, param.channels, param.height, param.width)
        shapes = _one_a_top([data, (param.batch_size,)] if known else [], tops)
        sizes = (param.batch_size, 1, 1, 2)  # DeepLab's height and width of each item
        return tuple(sizes if top == "data_dim" else shape for top, shape in zip(message.top, shapes, strict=True))
    if message.type == PYTHON_LAYER:
        return (None,) * tops
    height, width = _image_size(message)
    data = (1, _channels(message), height, width) if height and width else None
    label: Shape | None = (1,)
    if message.type == "ImageSegData" and data is not None:
        label = (1, 1, height, width)
    rest: list[Shape | None] = [label, (1, 1, 1, 2) if message.type == "ImageSegData" else None]
    return _one_a_top([data, *rest], tops)


def _one_a_top(shapes: Sequence[Shape | None], tops: int) -> tuple[Shape | None, ...]:
    return tuple([*shapes, *[None] * tops][:tops])


def _image_size(message: Any) -> tuple[int, int]:
    transform = message.transform_param
    for height, width in (
        (transform.crop_size, transform.crop_size),
        (transform.crop_height, transform.crop_width),
        (transform.crop_h, transform.crop_w),
        (message.image_data_param.new_height, message.image_data_param.new_width),
        (message.dense_image_data_param.new_height, message.dense_image_data_param.new_width),
        (message.window_data_param.crop_size, message.window_data_param.crop_size),
        (transform.resize_param.height, transform.resize_param.width),
    ):
        if height and width:
            return height, width
    return 0, 0


def _channels(message: Any) -> int:
    is_gray = message.type == "ImageData" and not message.image_data_param.is_color
    return (
        1
        if is_gray
        else max(3, 0 if len(message.transform_param.mean_value) < 3 else len(message.transform_param.mean_value))
    )
