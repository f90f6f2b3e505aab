"""`atrous push`: a bundle to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from . import console
from .card import card_options, make_card


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("repository", metavar="hf:ORG/NAME")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@card_options
@console.json_option
def command(
    bundle: Path,
    repository: str,
    private: bool,
    license: str,
    benchmark: Path | None,
    evaluation: Path | None,
    as_json: bool,
) -> None:
    """Upload BUNDLE and its model card to the Hugging Face Hub, in one commit.

    The repository is created if it is missing. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from ..bundle import read_bundle
    from ..runtime.hub.transfer import HubName, push_bundle

    to = HubName.parse(repository)
    card = make_card(bundle, license, benchmark, evaluation, to.name)
    address = push_bundle(read_bundle(bundle), to, card, private=private)
    if as_json:
        console.print_json("push", {"bundle": bundle, "repository": repository, "commit": address})
    else:
        console.print_line(f"{bundle} -> {address}")
