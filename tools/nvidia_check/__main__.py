"""All graphs through NVIDIA's parser and builder: `python -m tools.nvidia_check [SHARED] [--json FILE]`.

The miniature with all heads, precisions and profiles, DeepLab-LargeFOV in all precisions, and with SHARED every net of
its corpus; see `sweep` for the verdicts. Needs what `make rtx-check` installs, and that environment's Python.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from atrous.errors import ConverterError

from ..corpus import find_prototxts, read_corpus_net
from ..gpu_bench.prepare import read_nets
from .graphs import HEADS, PROFILES, VARIANTS, write_graphs
from .harness import Nvidia, find_missing, prepare
from .sweep import MAX_WEIGHTS, SOUND, Given, count_weights, give, give_net


def give_all(nvidia: Nvidia, folder: Path, shared: Path | None) -> Iterator[Given]:
    """Give every graph; see the module docstring."""
    for name, net in read_nets(("miniature", "largefov")).items():
        for head in HEADS if name == "miniature" else HEADS[:1]:
            for variant, graph in write_graphs(net, folder / name, head, VARIANTS).items():
                for profile, sizes in PROFILES.items():
                    yield give(nvidia, graph, f"{name} {head} {variant} {profile}", sizes=sizes)
        for variant, graph in write_graphs(net, folder / f"{name}-fixed", HEADS[0], VARIANTS, is_fixed=True).items():
            yield give(nvidia, graph, f"{name} {HEADS[0]} {variant} static")
    for path in find_prototxts(shared / "corpus") if shared is not None else ():
        try:
            net = read_corpus_net(path)
        except ConverterError:
            continue
        if count_weights(net) <= MAX_WEIGHTS:
            for given in give_net(nvidia, net, folder):
                yield Given(**{**asdict(given), "title": f"{path.parent.name} {given.title}"})


def main() -> int:
    """Print a line for each graph and the counts; return 1 if a verdict is not sound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, nargs="?", help="folder that holds corpus/")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args()
    if missing := find_missing():
        parser.error(missing)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        libraries = Path(folder, "libraries")
        libraries.mkdir()
        for given in give_all(prepare(libraries), Path(folder), options.shared):
            found.append(given)
            print(f"{given.verdict:13}{given.seconds:6.1f} s  {given.title}  {given.reason[:200]}", flush=True)
    counts = Counter(given.verdict for given in found)
    print(f"{len(found)} graphs: " + ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    if options.json:
        options.json.write_text(json.dumps([asdict(given) for given in found], indent=1))
    return 0 if counts.keys() <= set(SOUND) else 1


if __name__ == "__main__":
    sys.exit(main())
