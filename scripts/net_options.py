"""The options of commands that read a Caffe net."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def parse_assignments(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """The callback of a repeated option NAME=VALUE."""
    assignments = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f'"{value}" is not NAME=VALUE', context, parameter)
        assignments[name] = text
    return assignments


def _parse_shapes(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, text in parse_assignments(context, parameter, values).items():
        try:
            shapes[name] = tuple(int(size) for size in text.replace("x", ",").split(","))
        except ValueError:
            raise click.BadParameter(f'"{text}" is not a shape such as 1,3,513,513', context, parameter) from None
    return shapes


def _load_plugins(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]) -> None:
    """Execute each file as a module of its name in `sys.modules`."""
    import importlib.util

    for path in paths:
        name = path.stem
        spec = importlib.util.spec_from_file_location(name, require_file(path, "Python file"))
        if path.suffix != ".py" or spec is None or spec.loader is None:
            raise click.BadParameter(f"{path} is not a Python file", context, parameter)
        if name in sys.modules and getattr(sys.modules[name], "__file__", None) != spec.origin:
            raise click.BadParameter(f'{path}: a module "{name}" exists already; rename the file', context, parameter)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise click.BadParameter(f"{path}: {type(error).__name__}: {error}", context, parameter) from error


_OPTIONS = (
    click.option("--set", "variables", multiple=True, callback=parse_assignments, metavar="NAME=VALUE",
                 help="Value of a ${NAME} placeholder in the prototxt; may be repeated."),
    click.option("--input", "input_shapes", multiple=True, callback=_parse_shapes, metavar="NAME=N,C,H,W",
                 help="Shape of an input blob, replacing the prototxt's; may be repeated."),
    click.option("--phase", type=click.Choice(["TEST", "TRAIN"]), default="TEST", show_default=True,
                 help="NetState phase for the include and exclude rules of layers."),
    click.option("--level", type=int, default=0, show_default=True, help="NetState level for the same rules."),
    click.option("--stage", "stages", multiple=True, help="NetState stage for the same rules; may be repeated."),
    click.option("--plugin", multiple=True, type=click.Path(path_type=Path), expose_value=False, callback=_load_plugins,
                 metavar="FILE.py", help="Python file that registers layers (docs/plugins.md); it is executed."),
    click.option("--missing", type=click.Choice(["refuse", "fill"]), default="refuse", show_default=True,
                 help="Layers that the weights lack: report an error, or keep their fillers as Caffe does."),
    click.option("--dialect", help="Caffe fork the prototxt is from, if it cannot be detected: bvlc, deeplab_v1, ..."),
)  # fmt: skip


def net_options(function: Command) -> Command:
    """Add the options for reading a prototxt; the command receives them as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def require_file(path: Path, what: str) -> Path:
    """Return the path if it is a file, else raise click.UsageError; `what` names the expected kind."""
    if path.is_dir():
        raise click.UsageError(f"{path} is a folder, not a {what}")
    if not path.exists():
        raise click.UsageError(f"{path} does not exist; give a {what}")
    return path
