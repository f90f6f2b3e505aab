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
        prototxt: the net's definition; None where a caffemodel was given alone, which holds one.
        weights: its caffemodel.
        info: a file of the form of `--info`, or None.
        variables: values of the prototxt's `${NAME}` placeholders.
    """

    prototxt: Path | None
    weights: Path
    info: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def resolve_net(net: Path, weights: Path | None) -> ResolvedNet:
    """Find the files that NET and WEIGHTS mean.

    Args:
        net: a prototxt; without weights the folder of a fetched model, the prototxt in it, or a caffemodel alone.
        weights: a caffemodel; where it is given, both are taken as they are.

    Raises:
        click.UsageError: weights are missing, or the model has not been fetched, or is not one to convert.
        ChangedFileError: a fetched file is not the recorded one.
    """
    if weights is not None:
        return ResolvedNet(net, weights)
    folder = net if net.is_dir() else net.parent
    if not net.exists() or not (folder / RECORD_FILE).is_file():
        return _without_weights(net)
    from ..converter.official import find_damage, read_record
    from ..errors import ChangedFileError

    record = read_record(folder)
    if record is None or (net != folder and net.name != record.files.prototxt.file):
        return _without_weights(net)
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


def is_fetched(net: Path) -> bool:
    """Whether NET alone means a fetched model, or the name of one: a folder, a file in such a folder, or nothing."""
    return net.is_dir() or not net.exists() or (net.parent / RECORD_FILE).is_file()


def _without_weights(net: Path) -> ResolvedNet:
    """A NET that is no fetched model and came alone: a caffemodel, or a mistake that is said."""
    if net.is_dir():
        raise click.UsageError(f"{net} is a folder without a fetched model; give a prototxt and a caffemodel")
    if net.exists():
        if b"\0" not in _read_start(net):
            raise click.UsageError(f"{net} came without weights; give its caffemodel as WEIGHTS")
        return ResolvedNet(None, net)
    if len(net.parts) == 1:
        _refuse_unfetched(net.name)
    raise click.UsageError(f"{net} does not exist; give a prototxt")


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _refuse_unfetched(name: str) -> None:
    """Say what to do where NET is the name of a model that is not here."""
    from ..converter.official import read_catalogue
    from ..errors import FetchError

    try:
        model = read_catalogue().find(name)
    except FetchError as error:
        hint = str(error).partition("; ")[2]
        near = f" ({hint})" if hint.startswith("did you mean") else ""
        raise click.UsageError(f"{name} does not exist; give a prototxt, or a model that was fetched{near}") from None
    raise click.UsageError(f"{model.name} has not been fetched into this folder: run atrous fetch {model.name}")
