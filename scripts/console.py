"""Output of the commands: JSON, tables, progress, lines.

Results go to stdout; progress and warnings go to stderr, so that `--json` output can be piped. Lines and tables are
escaped (`atrous.printable`): they may hold names from untrusted files. rich is imported when something is drawn, not
when the command line starts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, TextIO, TypeVar

import click

from ..printable import escape, escape_lines

SCHEMA_VERSION = 1
_PIPE_WIDTH = 240  # columns of a table outside a terminal
_NARROW = 60  # columns of a terminal below which wide tables become lists
_verbosity = 0

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(function: Command) -> Command:
    """Give a command `--json`; the function receives it as the argument `as_json`."""

    def record(context: click.Context, _: click.Parameter, value: bool) -> bool:
        if value:  # main() then reports errors as JSON too, in this command's name
            context.ensure_object(dict)["json"] = context.command_path.split()[:2][-1]  # of a group: its name
        return value

    return click.option("--json", "as_json", is_flag=True, callback=record, help="Print one JSON object to stdout.")(
        function
    )


def debug_option() -> click.Option:
    """The `--debug` option, added to every command by the group."""

    def record(context: click.Context, _: click.Parameter, value: bool) -> None:
        state = context.ensure_object(dict)
        state["debug"] = state.get("debug", False) or value

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=record, help="Show the traceback of an error."
    )


def verbosity_options() -> tuple[click.Option, click.Option]:
    """The options `-v` and `-q`, added to every command by the group."""

    def record(context: click.Context, parameter: click.Parameter, value: int) -> None:
        if value:
            set_verbosity(-1 if parameter.name == "quiet" else value)

    more = click.Option(
        ["-v", "--verbose"],
        count=True,
        expose_value=False,
        callback=record,
        help="Log what the library does to stderr; -vv for more.",
    )
    less = click.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=record, help="No progress and no warnings."
    )
    return more, less


def set_verbosity(level: int) -> None:
    """Set what goes to stderr besides errors: -1 nothing, 0 warnings and progress, 1 the log too, 2 its details."""
    global _verbosity
    _verbosity = level
    if level > 0 or "logging" in sys.modules:
        import logging

        logger = logging.getLogger("atrous")
        for handler in [handler for handler in logger.handlers if getattr(handler, "is_ours", False)]:
            logger.removeHandler(handler)
        if level > 0:
            shown = logging.StreamHandler(sys.stderr)
            shown.is_ours = True  # type: ignore[attr-defined]
            shown.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logger.addHandler(shown)
        logger.setLevel({-1: logging.ERROR, 0: logging.NOTSET, 1: logging.INFO}.get(level, logging.DEBUG))


def print_json(command: str, payload: Mapping[str, object]) -> None:
    """Print one JSON object: `schema_version`, `command`, then `payload`; ValueError for NaN and infinities."""
    click.echo(_to_json({"schema_version": SCHEMA_VERSION, "command": command, **payload}))


def keep_json(payload: Mapping[str, object]) -> None:
    """Keep what was measured: if the command fails later, `main` prints it beside the error."""
    click.get_current_context().ensure_object(dict)["kept"] = payload


def print_json_rows(command: str, payload: Mapping[str, object], name: str, rows: Iterable[object]) -> None:
    """Print as `print_json`, with one more list `name` at the end, whose rows are read one at a time."""
    text = _to_json({"schema_version": SCHEMA_VERSION, "command": command, **payload, name: []})
    click.echo(text.removesuffix("]\n}"), nl=False)
    separator = "\n"
    for row in rows:
        lines = _to_json(row).replace("\n", "\n    ")
        click.echo(f"{separator}    {lines}", nl=False)
        separator = ",\n"
    click.echo(("" if separator == "\n" else "\n  ") + "]\n}")


def _to_json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False, default=_to_plain)


def _to_plain(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table to stdout; columns whose cells are all numbers are aligned to the right."""
    from rich.table import Table

    console = _open_console(sys.stdout)
    widths = [max(len(str(row[index] or "")) for row in [columns, *rows]) for index in range(len(columns))]
    if console.width < _NARROW and sum(widths) + len(widths) > console.width:
        _print_list(columns, rows, title)
        return
    table = Table(
        title=escape(title) if title else None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for index, name in enumerate(columns):
        is_number = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(escape(name), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    console.print(table)


def _print_list(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> None:
    """Print rows as lists of `column: value`, for narrow terminals."""
    if title:
        print_line(title)
    for row in rows:
        for index, (name, cell) in enumerate(zip(columns, row, strict=True)):
            text = "" if cell is None else str(cell)
            if text:
                print_line(text if index == 0 else f"  {name}: {text}" if name else f"  {text}")


def print_line(text: str, color: str | None = None) -> None:
    """Print a line to stdout."""
    click.secho(escape_lines(text), fg=color)


def print_warning(message: str) -> None:
    """Print a line to stderr; the work continues."""
    if _verbosity >= 0:
        click.secho(escape_lines(message), err=True, fg="yellow")


@contextmanager
def show_progress(
    description: str, total: int | None = None, *, unit: str | None = None
) -> Iterator[Callable[[int], None]]:
    """Draw a progress bar on stderr, if it is a terminal; yields a function that advances it by `unit`s."""
    if not sys.stderr.isatty() or _verbosity != 0:
        yield lambda steps: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    clocks = (TimeElapsedColumn(), TimeRemainingColumn())
    speed = () if unit is None else (_make_speed_column(unit),)
    with Progress(*columns, *speed, *clocks, console=_open_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(escape(description), total=total)
        yield lambda steps: bar.advance(task, steps)


def _make_speed_column(unit: str) -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class SpeedColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g} {unit}/s")

    return SpeedColumn()


@contextmanager
def show_steps() -> Iterator[Callable[[str], None]]:
    """Show the current step on stderr, if it is a terminal; yields a function that takes the name of each step."""
    if _verbosity > 0:
        import logging

        yield logging.getLogger("atrous").info
        return
    if not sys.stderr.isatty() or _verbosity < 0:
        yield lambda step: None
        return
    with _open_console(sys.stderr).status("starting") as status:
        yield lambda step: status.update(escape(step))


def _open_console(stream: TextIO) -> Any:
    from rich.console import Console

    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
