"""`atrous card`: the model card of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import console


def card_options(command: Any) -> Any:
    """The options that say what a bundle does not know about itself."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for option in (
        click.option(
            "--license", default="other", show_default=True, help="License of the weights, as the Hub names it."
        ),
        click.option("--benchmark", type=file, metavar="FILE", help="Add the times of this result of atrous bench."),
        click.option("--evaluation", type=file, metavar="FILE", help="Add the figures of this evaluation.json."),
    ):
        command = option(command)
    return command


def make_card(
    bundle: Path, license: str, benchmark: Path | None, evaluation: Path | None, repository: str | None = None
) -> str:
    """The card of the bundle in a folder."""
    from ..bundle import read_bundle
    from ..runtime.benchmark.result_file import read_result
    from ..runtime.hub.card import write_card

    return write_card(
        read_bundle(bundle),
        license=license,
        repository=repository,
        benchmark=read_result(benchmark) if benchmark else None,
        evaluation=evaluation,
    )


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: BUNDLE/README.md]"
)
@card_options
@console.json_option
def command(
    bundle: Path, out: Path | None, license: str, benchmark: Path | None, evaluation: Path | None, as_json: bool
) -> None:
    """Write the model card of BUNDLE: sources, input, classes, CRF, verification, quality, speed.

    The card is Markdown with the metadata that the Hugging Face Hub reads; `atrous push` writes it too.
    """
    from ..bundle.files import write_file

    target = out or bundle / "README.md"
    write_file(target, make_card(bundle, license, benchmark, evaluation).encode())
    if as_json:
        console.print_json("card", {"bundle": bundle, "card": target})
    else:
        console.print_line(f"card: {target}")
