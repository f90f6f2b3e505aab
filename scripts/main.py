"""The command line `atrous`: one group whose commands are imported when they are asked for.

Exit codes: 0 done, 1 the work failed a check, 2 bad usage or input, 3 a missing dependency or device.
A user's mistake is one line on stderr (and, with `--json`, an `error` object on stdout); a traceback appears only
with `--debug`, or where atrous itself is at fault.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from ..errors import AtrousError
from . import console

# name of the command (and of its module here) -> its line in `atrous --help`
COMMANDS = {
    "inspect": "Show a Caffe net: layers, shapes, cost, dialect, what cannot be converted.",
    "convert": "Turn a prototxt and a caffemodel into a bundle.",
    "verify": "Compare the stages of a bundle, layer by layer.",
    "precision": "Add a variant in FP16, BF16, INT8 or FP8, checked on the CPU.",
    "build": "Build a TensorRT engine of a bundle's network, and keep the engine store.",
    "segment": "Label images with a bundle.",
    "evaluate": "Measure a bundle's mean IoU on a labelled data set.",
    "tune-crf": "Choose the dense CRF's parameters on a labelled data set.",
    "fetch": "List or download the official DeepLab models.",
    "demo": "Convert the built-in miniature and segment its scenes.",
    "bench": "Measure a bundle: stages, load, accuracy; compare results.",
    "doctor": "Check this installation: libraries, devices, numerics.",
}
# commands whose module cannot have their name: the standard library has it, or it is no identifier
MODULES = {"inspect": "inspect_net", "tune-crf": "tune_crf"}
MISSING = 3  # a library that an extra would bring
# libraries that the extra `convert` brings, whatever other extra has them too
CONVERTING = ("torch", "safetensors", "onnx", "onnxruntime", "google.protobuf", "onnx_ir")
INTERRUPTED = 130  # the shell's code for Ctrl-C


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{MODULES.get(cmd_name, cmd_name)}", __package__).command
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(console.debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from ..dependencies import read_version

        click.echo(f"atrous {read_version('atrous') or '(source tree)'}")
        context.exit()


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
@click.pass_context
def cli(context: click.Context) -> None:
    """Caffe networks to PyTorch, ONNX and labels, with numbers that prove each step."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.params.append(console.debug_option())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what follows the program's name; `sys.argv[1:]` when None.
    """
    state: dict[str, Any] = {}
    try:
        code = cli.main(arguments, prog_name="atrous", standalone_mode=False, obj=state)
    except click.Abort:
        click.echo("atrous: interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        return _report(error, _describe_usage(error), error.exit_code, state)
    except AtrousError as error:
        return _report(error, f"atrous: {error}", error.exit_code, state)
    except ModuleNotFoundError as error:
        missing = _describe_missing(error)
        if missing is None:
            raise
        return _report(error, f"atrous: {missing}", MISSING, state)
    return code if isinstance(code, int) else 0


def _describe_missing(error: ModuleNotFoundError) -> str | None:
    """The library of an extra that is not installed, with the pip line; None for anything else."""
    from ..dependencies import OPTIONAL

    name = error.name or ""
    dependency = next((OPTIONAL[m] for m in OPTIONAL if name and f"{m}.".startswith(f"{name}.")), None)
    dependency = dependency or OPTIONAL.get(name.partition(".")[0])
    if dependency is None:
        return None
    converting = _package_in_use("converter") and dependency.module in CONVERTING
    extra = "convert" if converting else dependency.extra
    return f'{dependency.distributions[0]} is not installed. Install it: pip install "atrous[{extra}]"'


def _package_in_use(name: str) -> bool:
    assert __package__
    return f"{__package__.rpartition('.')[0]}.{name}" in sys.modules


def _describe_usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "atrous"
    hint = f" Try '{path} --help'" if context is not None else ""
    return f"{path}: {error.format_message().rstrip('.')}.{hint}"


def _report(error: Exception, line: str, exit_code: int, state: dict[str, Any]) -> int:
    if state.get("debug"):
        traceback.print_exception(error)
    click.secho(line, err=True, fg="red")
    if state.get("json"):
        kind = type(error).__name__
        console.print_json(state["json"], {"error": {"type": kind, "message": str(error), "exit_code": exit_code}})
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
