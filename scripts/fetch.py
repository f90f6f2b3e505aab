"""`atrous fetch`: list the official models, fetch one, import one from a file; or fetch a bundle from the Hub."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from . import console

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..converter.official.catalogue import Catalogue, OfficialModel
    from ..converter.official.record import ModelRecord


@click.command()
@click.argument("name", required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to put the model into.  [default: ./NAME]")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Import this caffemodel or zip file instead of downloading.",
)
@click.option("--again", is_flag=True, help="Download the model although the folder has it.")
@click.option("--all", "everything", is_flag=True, help="From the Hub: the torch model too, whose model.py is code.")
@click.option("--accept-changed", is_flag=True, help="Accept a file that differs from the one recorded before.")
@click.option("--show", is_flag=True, help="Show the details of NAME, such as its addresses, and download nothing.")
@click.option(
    "--catalogue",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the list of models from this JSON file, such as that of a mirror.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 600),
    default=30,
    show_default=True,
    help="Seconds to wait for a server's response, redirects included.",
)
@console.json_option
def command(
    name: str | None,
    out: Path | None,
    source: Path | None,
    again: bool,
    everything: bool,
    accept_changed: bool,
    show: bool,
    catalogue: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Fetch the official model NAME, ready for `atrous convert NAME`; without NAME, list the models.

    NAME can also be hf:ORG/NAME or hf:ORG/NAME@REVISION, a bundle on the Hugging Face Hub: the files that label images
    are downloaded and compared with the manifest's checksums, and --again replaces a bundle that is there.

    Addresses are tried in order, interrupted downloads are resumed, and the weights are checked against the net. No
    checksums were ever published: the first download is recorded in model.json, and later ones must equal it. If no
    address responds, find the file elsewhere and import it with --from.

    Exit codes: 0 success, 1 no address gave the file or a file is not the recorded one, 2 invalid usage or file.
    """
    if name is not None and name.startswith("hf:"):
        if source or accept_changed or show or catalogue:
            raise click.UsageError("a bundle on the Hub takes only -o, --all and --again")
        return _fetch_bundle(name, out, everything, again, as_json)
    if everything:
        raise click.UsageError("--all is for bundles on the Hub: hf:ORG/NAME")
    from ..converter.official.catalogue import read_catalogue

    known = read_catalogue(catalogue) if catalogue is not None else read_catalogue()
    if name is None:
        if out or source or again or accept_changed or show:
            raise click.UsageError("give the NAME of a model; without options, atrous fetch lists the models")
        return _list(known, as_json)
    model = known.find(name)
    if show:
        return _show(known, model, as_json)
    from ..converter.official.fetch import Fetch

    folder, started = out or Path(model.name), time.perf_counter()
    with _show_bytes() as progress:
        state, record = Fetch(known, model, folder, source, again, accept_changed, timeout, progress).run()
    seconds = time.perf_counter() - started
    if as_json:
        content = {"name": record.name, "state": state, "folder": folder, "seconds": round(seconds, 3)}
        console.print_json("fetch", {**content, "model": record.model_dump(mode="json")})
    else:
        _print_result(state, folder, record, seconds)
    return 0


def _fetch_bundle(name: str, out: Path | None, everything: bool, replace: bool, as_json: bool) -> int:
    from ..runtime.hub.transfer import HubName, fetch_bundle

    source = HubName.parse(name)
    folder, started = out or Path(source.name.rpartition("/")[2]), time.perf_counter()
    bundle = fetch_bundle(source, folder, everything=everything, replace=replace)
    size_bytes = sum(entry.bytes for entry in bundle.manifest.files.values())
    if as_json:
        seconds = round(time.perf_counter() - started, 3)
        content = {"name": name, "folder": folder, "seconds": seconds, "files": sorted(bundle.manifest.files)}
        console.print_json("fetch", {**content, "bytes": size_bytes})
    else:
        console.print_line(f"{name}: {size_bytes / 1e6:.1f} MB, equal to the manifest's checksums -> {folder}")
        if everything:
            console.print_warning(f"{folder}/model.py is code: `verify` and the torch backend run it")
        console.print_line(f"next: atrous {'segment' if bundle.manifest.deploy else 'run'} {folder} IMAGES")
    return 0


def _list(catalogue: Catalogue, as_json: bool) -> int:
    listed = [(model, find_state(model, Path(model.name))) for model in catalogue.models]
    if as_json:
        models = [{**model.model_dump(mode="json"), "fetched": state} for model, state in listed]
        console.print_json("fetch", {"page": catalogue.page, "about": catalogue.about, "models": models})
        return 0
    rows = []
    for model, state in listed:
        addresses = model.weights.addresses
        seen = f"{sum(address.basis == 'seen' for address in addresses)} of {len(addresses)}"
        crf = _describe_crf(model.crf)
        rows.append((model.name, _describe_size(model), str(model.labels or "-"), crf, seen, state, model.about))
    console.print_table(("name", "size", "classes", "CRF", "addresses", "fetched", "description"), rows)
    click.echo(
        "\nCRF: bilateral sxy,srgb,weight + gaussian sxy,weight. Addresses: the number seen in public scripts; the\n"
        "others are derived, and none has been tried. No checksums were ever published. Details: fetch NAME --show"
    )
    return 0


def find_state(model: OfficialModel, folder: Path) -> str:
    """Whether a folder holds a model: `yes`, `begun` (an interrupted download) or `no`."""
    from ..converter.official.record import read_record
    from ..errors import FetchError

    try:
        record = read_record(folder)
    except FetchError:
        return "no"
    if record is not None:
        return "yes" if record.name == model.name else "no"
    return "begun" if any(folder.glob(".*.part")) else "no"


def _describe_size(model: OfficialModel) -> str:
    from rich.filesize import decimal

    size = decimal(model.weights.size_bytes) if model.weights.size_bytes is not None else "unknown"
    return f"~{size} (zip)" if model.weights.member is not None else size


def _describe_crf(crf: dict[str, Any] | None) -> str:
    """CRF parameters in the order of convert's options."""
    if crf is None:
        return "-"
    parts = [f"{term['sxy']:g},{term['srgb']:g},{term['weight']:g}" for term in crf["bilateral"]]
    return " + ".join(parts + [f"{term['sxy']:g},{term['weight']:g}" for term in crf["gaussian"]])


def _show(catalogue: Catalogue, model: OfficialModel, as_json: bool) -> int:
    state, remote = find_state(model, Path(model.name)), model.weights
    page = model.page or catalogue.page
    if as_json:
        console.print_json("fetch", {"page": page, "model": {**model.model_dump(mode="json"), "fetched": state}})
        return 0
    classes = f"{model.labels} classes ({model.classes or 'numbered'})" if model.labels else "no classifier"
    lines = [
        f"{model.title} ({model.name})",
        model.about,
        f"file: {remote.file}, {_describe_size(model)}: {remote.size_basis or 'size unknown'}",
        *([f"member of the zip file: {remote.member}"] if remote.member is not None else []),
        *(f"address: {address.url} ({address.basis})" for address in remote.addresses),
        f"page: {page}",
        f"{classes}, mean B,G,R {', '.join(f'{value:g}' for value in model.mean)}, "
        f"images of at least {model.input_size} x {model.input_size}",
        *([f"CRF {_describe_crf(model.crf)} ({model.crf['mode']}): {model.crf_source}"] if model.crf else []),
        f"checksum: {remote.sha256 or 'none published; the first download is recorded'}",
        f"addresses verified: {'yes' if model.verified else 'no'}; fetched: {state}",
        *(f"note: {note}" for note in model.notes),
    ]
    click.echo("\n  ".join(lines))
    return 0


def _print_result(state: str, folder: Path, record: ModelRecord, seconds: float) -> None:
    from rich.filesize import decimal

    if state == "present":
        click.echo(f"{record.title} is present, and its files equal their record")
    else:
        for note in record.notes:
            console.print_warning(f"note: {note}")
        click.echo(f"{record.title} from {record.weights.final_url or record.weights.imported_from} in {seconds:.1f} s")
    for file in (record.weights, record.prototxt):
        click.echo(f"  {folder / file.file}  {decimal(file.size_bytes)}, {file.origin}, sha256 {file.sha256[:16]}...")
    kind = f"{len(record.classes)} named classes" if record.classes else "no class names"
    click.echo(f"  {folder / 'model.json'}  {kind}, CRF {_describe_crf(record.crf)}, checksums, addresses")
    if record.role == "segmentation":
        click.echo(f"next: atrous convert {folder} -o BUNDLE")


@contextmanager
def _show_bytes() -> Iterator[Callable[[str, int, int | None], None]]:
    """Draw a progress bar on stderr for each address or step, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16), DownloadColumn())
    terminal = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                address = urlsplit(step)
                shown = f"{address.hostname} {address.path.rpartition('/')[2]}" if address.hostname else step
                tasks[step] = bar.add_task(shown, total=total)
            bar.update(tasks[step], completed=done, total=total)

        yield show
