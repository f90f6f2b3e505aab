"""The progress bar of a download: bytes, rate, and what is left, on stderr where a person can see it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def show_bytes() -> Iterator[Callable[[str, int, int | None], None]]:
    """Draw a bar while the block runs.

    Yields:
        A function that takes what is done (an address, or words), the bytes done, and the bytes in all, if known.
    """
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    room = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # the numbers never wrap; a long name is cut
    text = TextColumn("{task.description}", markup=False, table_column=room)
    columns = (text, BarColumn(bar_width=16), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, expand=True) as bar:
        current, task = "", bar.add_task("connecting", total=None)

        def show(what: str, done: int, total: int | None) -> None:
            nonlocal current, task
            if what != current:
                bar.remove_task(task)
                current, task = what, bar.add_task(shorten_address(what), total=total)
            bar.update(task, completed=done, total=total)

        yield show


def shorten_address(what: str) -> str:
    """Host and file of an address; other words as they are."""
    parts = urlsplit(what)
    if parts.scheme not in ("http", "https"):
        return what
    return f"{parts.hostname} {parts.path.rpartition('/')[2]}"
