"""Models that `atrous fetch` has put in a folder, where a command takes a prototxt and weights.

Anywhere NET and WEIGHTS are asked for, the folder of a fetched model (or its prototxt) stands for both: its
`model.json` names the files, what their placeholders stand for, and what a conversion needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

RECORD_FILE = "model.json"


@dataclass(frozen=True)
class ResolvedNet:
    """What NET and WEIGHTS stand for.

    Attributes:
        prototxt: the net's definition.
        weights: its caffemodel, or None where none was given.
        info: a file of the form of `--info`, or None.
        variables: values of the prototxt's `${NAME}` placeholders.
    """

    prototxt: Path
    weights: Path | None
    info: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def resolve_net(net: Path, weights: Path | None) -> ResolvedNet:
    """Find the files that NET and WEIGHTS mean.

    Args:
        net: a prototxt, the folder of a fetched model, or the prototxt in it.
        weights: a caffemodel; given, it always counts as it is.

    Raises:
        click.UsageError: the model has not been fetched, or is not one to convert.
        ChangedFileError: a fetched file is not the recorded one.
    """
    if weights is not None:
        return ResolvedNet(net, weights)
    folder = net if net.is_dir() else net.parent
    if not (folder / RECORD_FILE).is_file() or not (net.is_dir() or net.exists()):
        _refuse_unfetched(net)
        return ResolvedNet(net, None)
    from ..converter.errors import ChangedFileError
    from ..converter.official import find_damage, read_record

    record = read_record(folder)
    if record is None or net.name not in (folder.name, record.files.prototxt.file):
        return ResolvedNet(net, None)
    if record.role == "initialization":
        files = f"{folder / record.files.prototxt.file} {folder / record.files.weights.file}"
        raise click.UsageError(
            f"{record.name} is what training starts from: it has no classifier. To convert it as it is, give {files}"
        )
    damage = find_damage(folder, record)
    if damage:
        advice = f"Fetch the model anew (atrous fetch {record.name} --again), or give NET and WEIGHTS by name"
        raise ChangedFileError("\n".join((*damage, advice)))
    return ResolvedNet(
        folder / record.files.prototxt.file,
        folder / record.files.weights.file,
        folder / RECORD_FILE,
        dict(record.variables),
    )


def _refuse_unfetched(net: Path) -> None:
    """Say what to do where NET is the name of a model that is not here."""
    if net.is_dir():
        raise click.UsageError(f"{net} is a folder without a fetched model; give a prototxt and a caffemodel")
    if net.exists() or len(net.parts) != 1:
        return
    from ..converter.errors import FetchError
    from ..converter.official import read_catalogue

    try:
        model = read_catalogue().find(net.name)
    except FetchError:
        return
    raise click.UsageError(f"{model.name} has not been fetched into this folder: run atrous fetch {model.name}")
