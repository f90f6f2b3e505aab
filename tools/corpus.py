"""Convert published nets: `python -m tools.corpus SHARED [--export]`.

Reads every prototxt of a folder of published nets, builds it in torch with weights from the fillers and, with
`--export`, exports it to ONNX. Prints each result with the reason of a refusal, and the counts.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from atrous.converter import Net, export_onnx, read_net, to_torch
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.graph.select import define_net
from atrous.errors import ConverterError, ExportError, NetError, PrototxtError, UnsupportedLayersError

#: numbers of classes to try for placeholders, in this order: VOC's, LIP's
CLASSES = ("21", "20")
#: channels, height, width to try, in this order, if a data layer has no sizes
SIZES = (
    (3, 321, 321), (3, 360, 480), (3, 227, 227), (3, 224, 224), (1, 28, 28), (2, 28, 28), (3, 32, 32), (1, 33, 33),
    (1, 50, 50), (3, 300, 300), (3, 512, 512),
)  # fmt: skip


@dataclass(frozen=True)
class CorpusResult:
    """The result of one net: `converted`, `torch only` (a layer has no ONNX form), `refused` or `crashed`."""

    name: str
    verdict: str
    reason: str
    seconds: float
    types: tuple[str, ...] = ()


def find_prototxts(root: Path) -> Iterator[Path]:
    """The published net file of each folder."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        source = folder / "source.json"
        if source.exists():
            yield folder / json.loads(source.read_text())["file"]


def check_net(path: Path, *, export: bool) -> CorpusResult:
    """Convert one net with weights from its fillers."""
    started = time.perf_counter()
    try:
        net = read_corpus_net(path)
        module = to_torch(net)
    except ConverterError as error:
        return CorpusResult(path.parent.name, "refused", _first_reason(error), time.perf_counter() - started)
    types = tuple(sorted({layer.type for layer in net.layers}))
    verdict, reason = "converted", ""
    if export:
        try:
            export_onnx(net, module)
        except ExportError as error:
            verdict, reason = "torch only", str(error)
    return CorpusResult(path.parent.name, verdict, reason, time.perf_counter() - started, types)


def read_corpus_net(path: Path) -> Net:
    """The net of the file, with the first numbers of classes, batch size and input sizes that fit."""
    text = path.read_text(encoding="utf-8", errors="replace")
    batch = max(map(int, re.findall(r"batch_size\s*:\s*(\d+)", text)), default=1)
    choices = CLASSES if "${NUM_LABELS}" in text else CLASSES[:1]
    trials = [(classes, own) for own in sorted({1, batch}) for classes in choices]
    errors: list[NetError] = []
    for classes, own in trials:
        variables = {"BATCH_SIZE": "1"} | dict.fromkeys(("NUM_LABELS", "NUM_CLASSES", "NUM_OUTPUT"), classes)
        try:
            return _build_at_some_size(path, variables, own)
        except NetError as error:
            errors.append(error)
    raise errors[0]


def _build_at_some_size(path: Path, variables: dict[str, str], batch: int) -> Net:
    """The net at the sizes of the file, else at the first usual size that its layers accept."""
    shapes: dict[str, tuple[int, ...]] = {}
    if batch > 1:
        definition = define_net(read_prototxt(path, variables=variables))
        shapes = {top.top: (batch, *top.shape[1:]) for top in definition.input_tops if top.shape}
    for _ in range(len(SIZES) * 4):
        try:
            return read_net(path, variables=variables, input_shapes=shapes)
        except NetError as error:
            missing = re.search(r'the shape of input "([^"]+)"', str(error))
            if missing is None or isinstance(error, UnsupportedLayersError):
                following = _next_size(shapes)
                if following is None or isinstance(error, UnsupportedLayersError):
                    raise
                shapes = following
            else:
                shapes[missing[1]] = (batch, 1) if batch > 1 else (1, *SIZES[0])  # one number per image of a batch
    raise NetError("no usual input size fits")


def _next_size(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]] | None:
    if not shapes:
        return None
    current = next(iter(shapes.values()))[1:]
    index = SIZES.index(current) + 1 if current in SIZES else len(SIZES)
    return dict.fromkeys(shapes, (1, *SIZES[index])) if index < len(SIZES) else None


def _first_reason(error: ConverterError) -> str:
    if isinstance(error, UnsupportedLayersError):
        kinds = Counter(kind for _, kind, _, _ in error.layers)
        return "no conversion for " + ", ".join(f"{kind} ({number})" for kind, number in kinds.items())
    if isinstance(error, PrototxtError):
        return str(error).split("/")[-1].splitlines()[0]
    return str(error).splitlines()[0]


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, help="folder that holds corpus/")
    parser.add_argument("--export", action="store_true", help="also export each net to ONNX")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    results = []
    for path in find_prototxts(options.shared / "corpus"):
        try:
            result = check_net(path, export=options.export)
        except Exception as error:  # report a crash and continue the sweep
            result = CorpusResult(path.parent.name, "crashed", f"{type(error).__name__}: {str(error)[:160]}", 0.0)
        results.append(result)
        print(f"{result.verdict:11}{result.seconds:6.1f} s  {result.name}  {result.reason}", flush=True)
    counts = Counter(result.verdict for result in results)
    print(f"{len(results)} nets: " + ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return 1 if counts["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
