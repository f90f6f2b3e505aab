"""`atrous fetch`: list the official models, fetch one, or take one from a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from ..converter.official import Catalogue, FetchResult, ModelRecord, OfficialModel


@click.command()
@click.argument("name", required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder of the model.  [default: ./NAME]")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Take this caffemodel or zip file."
)
@click.option("--again", is_flag=True, help="Fetch it anew though it is there.")
@click.option("--accept-changed", is_flag=True, help="Take a file that is not the one recorded before.")
@click.option("--offline", is_flag=True, help="Check what is there without asking its server.")
@click.option("--show", is_flag=True, help="Tell all that is known of NAME, and fetch nothing.")
@click.option(
    "--catalogue", type=click.Path(path_type=Path), metavar="FILE", help="Another list of models, such as of a mirror."
)
@click.option(
    "--timeout", type=click.FloatRange(1, 600), default=20, show_default=True, help="Seconds to wait for a server."
)
@console.json_option
def command(
    name: str | None,
    out: Path | None,
    source: Path | None,
    again: bool,
    accept_changed: bool,
    offline: bool,
    show: bool,
    catalogue: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Fetch the official model NAME, ready for `atrous convert NAME`; without NAME, list the models.

    Addresses are tried in order, interrupted downloads are continued, and the weights are checked against the net
    before they count. No checksums were ever published: the first download is recorded in model.json, and later ones
    must equal it. If no address answers, get the file by hand and give it with --from.

    Exit codes: 0 done, 1 no address gave the file or a file is not the recorded one, 2 wrong usage or file.
    """
    from ..converter.official import FetchOptions, Limits, fetch_model, read_catalogue

    known = read_catalogue(catalogue) if catalogue is not None else read_catalogue()
    if name is None:
        if out or source or again or accept_changed or show:
            raise click.UsageError("give the NAME of a model; atrous fetch alone lists them")
        return _list(known, as_json)
    model = known.find(name)
    if show:
        return _show(known, model, as_json)
    from .fetch_progress import show_bytes

    started = time.perf_counter()
    with show_bytes() as progress:
        result = fetch_model(
            known,
            model,
            out or Path(model.name),
            FetchOptions(
                again=again,
                accept_changed=accept_changed,
                source=source,
                offline=offline,
                limits=Limits(timeout_s=timeout),
                progress=progress,
            ),
        )
    if as_json:
        console.print_json("fetch", _describe_result(result, time.perf_counter() - started))
    else:
        _print_result(result, time.perf_counter() - started)
    return 0


def _list(catalogue: Catalogue, as_json: bool) -> int:
    here = {model.name: find_state(model, Path(model.name)) for model in catalogue.models}
    if as_json:
        models = [{**model.model_dump(mode="json"), "fetched": here[model.name]} for model in catalogue.models]
        console.print_json("fetch", {"page": catalogue.page, "about": catalogue.about, "models": models})
        return 0
    rows = [
        (
            model.name,
            describe_file(model),
            str(model.labels or "-"),
            describe_crf(model.crf),
            count_addresses(model),
            here[model.name],
            model.about,
        )
        for model in catalogue.models
    ]
    console.print_table(("name", "size", "classes", "CRF", "addresses", "fetched", "what it is"), rows)
    click.echo(
        "\nCRF: bilateral sxy,srgb,weight + gaussian sxy,weight. Addresses: how many of them were seen in public "
        "scripts;\nthe others are guessed, none has been tried, and no checksums were ever published. "
        "atrous fetch NAME --show tells more."
    )
    return 0


def find_state(model: OfficialModel, folder: Path) -> str:
    """Whether a model lies in a folder: `yes`, `begun` (an interrupted download) or `no`."""
    from ..converter.official import read_record
    from ..errors import FetchError

    try:
        record = read_record(folder)
    except FetchError:
        return "no"
    if record is not None:
        return "yes" if record.name == model.name else "no"
    return "begun" if folder.is_dir() and any(folder.glob(".*.part")) else "no"


def describe_file(model: OfficialModel) -> str:
    """Size of what is downloaded."""
    from ..converter.official import describe_size

    size = describe_size(model.weights.size_bytes) if model.weights.size_bytes is not None else "unknown"
    return f"~{size} (zip)" if model.weights.member is not None else size


def describe_crf(crf: dict[str, Any] | None) -> str:
    """CRF parameters in the order of convert's options."""
    if crf is None:
        return "-"
    parts = [f"{term['sxy']:g},{term['srgb']:g},{term['weight']:g}" for term in crf["bilateral"]]
    parts += [f"{term['sxy']:g},{term['weight']:g}" for term in crf["gaussian"]]
    return " + ".join(parts)


def count_addresses(model: OfficialModel) -> str:
    """`2 of 3`: seen, of all."""
    addresses = model.weights.addresses
    return f"{sum(address.basis == 'seen' for address in addresses)} of {len(addresses)}"


def _show(catalogue: Catalogue, model: OfficialModel, as_json: bool) -> int:
    state = find_state(model, Path(model.name))
    if as_json:
        content = {**model.model_dump(mode="json"), "fetched": state}
        console.print_json("fetch", {"page": catalogue.page, "model": content})
        return 0
    remote = model.weights
    click.echo(f"{model.name}: {model.title}\n  {model.about}")
    click.echo(f"  {remote.file}, {describe_file(model)}: {remote.size_basis or 'size not known'}")
    if remote.member is not None:
        click.echo(f"  taken out of it: {remote.member}")
    for title, file in (("weights", remote), ("prototxt", model.prototxt)):
        for address in file.addresses if file is not None else ():
            click.echo(f"  {title}: {address.url} ({address.basis})")
    if model.prototxt is None and remote.prototxt_member is None:
        click.echo("  prototxt: written by atrous")
    kind = f"{model.labels} classes ({model.classes or 'numbered'})" if model.labels else "no classifier"
    mean = ", ".join(f"{value:g}" for value in model.mean)
    click.echo(f"  {kind}, mean B,G,R {mean}, images of at least {model.input_size} x {model.input_size}")
    if model.crf is not None:
        click.echo(f"  CRF {describe_crf(model.crf)} ({model.crf['mode']}): {model.crf_source}")
    click.echo(f"  checksum: {remote.sha256 or 'none published; the first download is recorded'}")
    click.echo(f"  addresses tried by anyone: {'yes' if model.verified else 'no'}; fetched here: {state}")
    for note in model.notes:
        click.echo(f"  note: {note}")
    return 0


def _describe_result(result: FetchResult, seconds: float) -> dict[str, Any]:
    return {
        "name": result.record.name,
        "state": result.state,
        "folder": result.folder,
        "seconds": round(seconds, 3),
        "server": result.server.to_json() if result.server is not None else None,
        "model": result.record.model_dump(mode="json"),
    }


def _print_result(result: FetchResult, seconds: float) -> None:
    record = result.record
    if result.state == "present":
        _print_present(result)
    else:
        for note in record.notes:
            console.print_warning(f"note: {note}")
        weights = record.files.weights
        source = weights.server.final_url if weights.server is not None else weights.imported_from
        click.echo(f"{record.title} from {source} in {seconds:.1f} s")
    _print_files(result.folder, record)
    if record.role == "segmentation":
        click.echo(f"next: atrous convert {result.folder} -o BUNDLE")


def _print_present(result: FetchResult) -> None:
    click.echo(f"{result.record.title} is here, and its files are those recorded")
    server = result.server
    if server is None:
        return
    if server.state == "changed":
        console.print_warning(
            f"the server's file has changed since: {server.detail}. The one here is kept; to compare and perhaps take "
            f"the new one: atrous fetch {result.record.name} --again"
        )
    elif server.state == "unchanged":
        click.echo(f"the server's file is unchanged ({server.detail})")
    else:
        click.echo(f"whether the server's file has changed is not known ({server.detail})")


def _print_files(folder: Path, record: ModelRecord) -> None:
    from ..converter.official import describe_size

    for file in (record.files.weights, record.files.prototxt):
        click.echo(
            f"  {folder / file.file}  {describe_size(file.size_bytes)}, {file.origin}, sha256 {file.sha256[:16]}..."
        )
    kind = f"{len(record.classes)} named classes" if record.classes else "no class names"
    click.echo(f"  {folder / 'model.json'}  {kind}, CRF {describe_crf(record.crf)}, checksums, addresses")
