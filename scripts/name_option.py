"""`--name stem|path`: the names of results, shared by `segment` and `run`."""

from __future__ import annotations

import click

name_option = click.option(
    "--name",
    "naming",
    type=click.Choice(("stem", "path")),
    default="stem",
    show_default=True,
    help="Name results of folder/photo.jpg OUT/photo.png, or OUT/folder/photo.jpg.png.",
)
