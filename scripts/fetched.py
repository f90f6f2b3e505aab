"""The folder of a fetched model in place of NET and WEIGHTS: its `model.json` names the files and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

RECORD_FILE = "model.json"


@dataclass(frozen=True)
class ResolvedNet:
    """The files that NET and WEIGHTS stand for; prototxt is None for a caffemodel that holds its own net."""

    prototxt: Path | None
    weights: Path
    info: Path | None = None


def resolve_net(net: Path, weights: Path | None) -> ResolvedNet:
    """Find the files that NET and WEIGHTS stand for; without weights, a fetched model's or a caffemodel alone."""
    if weights is not None:
        return ResolvedNet(net, weights)
    folder = net if net.is_dir() else net.parent
    if not net.exists() or not (folder / RECORD_FILE).is_file():
        return _resolve_single_file(net)
    from ..converter.official.record import find_damage, read_record
    from ..errors import ChangedFileError

    record = read_record(folder)
    if record is None or (net != folder and net.name != record.prototxt.file):
        return _resolve_single_file(net)
    prototxt, caffemodel = folder / record.prototxt.file, folder / record.weights.file
    if record.role == "initialization":
        raise click.UsageError(
            f"{record.name} is an initialization for training: it has no classifier. "
            f"To convert it as it is, give {prototxt} {caffemodel}"
        )
    damage = find_damage(folder, record)
    if damage:
        advice = f"Fetch the model again (atrous fetch {record.name} --again), or give NET and WEIGHTS by name"
        raise ChangedFileError("\n".join((*damage, advice)))
    return ResolvedNet(prototxt, caffemodel, folder / RECORD_FILE)


def is_fetched(net: Path) -> bool:
    """Whether NET alone is a fetched model or the name of one: a folder, a file in such a folder, or missing."""
    return net.is_dir() or not net.exists() or (net.parent / RECORD_FILE).is_file()


def _resolve_single_file(net: Path) -> ResolvedNet:
    """Resolve a NET without WEIGHTS that is not a fetched model: a caffemodel, or a mistake."""
    if net.is_dir():
        raise click.UsageError(f"{net} is a folder without a fetched model; give a prototxt and a caffemodel")
    if net.exists():
        try:
            with net.open("rb") as file:
                start = file.read(4096)
        except OSError as error:
            raise click.UsageError(f"{net}: cannot be read ({error.strerror})") from None
        if b"\0" not in start:
            raise click.UsageError(f"{net} was given without weights; give its caffemodel as WEIGHTS")
        return ResolvedNet(None, net)
    if len(net.parts) > 1:
        raise click.UsageError(f"{net} does not exist; give a prototxt")
    from ..converter.official.catalogue import read_catalogue
    from ..errors import FetchError

    try:
        model = read_catalogue().find(net.name)
    except FetchError as error:
        hint = str(error).partition("; ")[2]
        near = f" ({hint})" if hint.startswith("did you mean") else ""
        raise click.UsageError(f"{net} does not exist; give a prototxt, or a fetched model{near}") from None
    raise click.UsageError(f"{model.name} has not been fetched into this folder: run atrous fetch {model.name}")
