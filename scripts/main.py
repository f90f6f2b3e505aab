"""The command line `atrous`: a group that imports only the command that runs.

Exit codes: 0 done, 1 the work failed a check, 2 bad usage or input, 3 a missing dependency or device, 130 interrupted
by Ctrl-C or SIGTERM. An error of the user or the system is one line on stderr (and, with `--json`, an `error` object
on stdout, beside what was measured); a traceback appears only with `--debug` or for a bug in atrous.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import click

from ..errors import AtrousError
from ..printable import escape_lines
from . import console, help_text, settings

# name of the command (and of its module here) -> its line in `atrous --help`
COMMANDS = {
    "inspect": "Show a Caffe net: layers, shapes, cost, dialect, unsupported layers.",
    "convert": "Convert a prototxt and a caffemodel to a bundle.",
    "verify": "Compare the stages of a bundle, layer by layer.",
    "precision": "Add a variant in FP16, BF16, INT8 or FP8, verified on the CPU.",
    "build": "Build a TensorRT engine of a bundle's network; manage the engine store.",
    "pack": "Copy what a bundle needs to label images, and nothing else.",
    "export": "Write a bundle in the form of another server, such as Triton.",
    "segment": "Label images with a bundle.",
    "merge": "Check the shards of segment --shard and join their records.",
    "serve": "Serve bundles over HTTP and gRPC, with a page for people.",
    "crf": "Refine saved outputs of any network by the dense CRF.",
    "plan": "Predict how long many images take on many machines.",
    "probe": "Try likely preprocessings of a bundle on a photo, as a contact sheet.",
    "run": "Run a bundle of any task on images: classes, numbers, key points, images out.",
    "evaluate": "Measure a bundle's mean IoU on a labeled dataset.",
    "tune-crf": "Tune the dense CRF's parameters on a labeled dataset.",
    "fetch": "List or download the official DeepLab models, or a bundle from the Hugging Face Hub.",
    "card": "Write the model card of a bundle.",
    "push": "Upload a bundle and its card to the Hugging Face Hub.",
    "demo": "Convert the built-in miniature and segment its scenes.",
    "bench": "Benchmark a bundle: stages, load, accuracy; compare results.",
    "schema": "Print the JSON schema of a command's --json output.",
    "doctor": "Check this installation: libraries, devices, numerics.",
}
# modules of commands whose name the standard library has or is not an identifier
MODULES = {"inspect": "inspect_net", "tune-crf": "tune_crf"}
BAD_INPUT = 2
MISSING = 3  # a library of an extra is not installed
# libraries of the extra `convert`, which is named if a command converts, even if another extra has them too
CONVERTING = ("torch", "safetensors", "onnx", "onnxruntime", "google.protobuf", "onnx_ir")
INTERRUPTED = 130  # the shell's code for Ctrl-C


class LazyGroup(click.Group):
    """A group that imports only the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the usual order of use."""
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interruption becomes `click.Abort` here, before click prints a blank line for it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The `command` of a command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{MODULES.get(cmd_name, cmd_name)}", __package__).command
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params += [*console.verbosity_options(), console.debug_option()]
            help_text.improve_help(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments, and its defaults; suggest a name in place of an unknown one."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = get_close_matches(args[0], COMMANDS, n=1)
            if not close or args[0].startswith("-"):
                raise
            raise click.UsageError(f"No such command '{args[0]}': did you mean '{close[0]}'?", ctx) from error
        if name is not None and command is not None:
            ctx.default_map = {name: _find_defaults(name, command)}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _find_defaults(name: str, command: click.Command) -> dict[str, Any]:
    """Defaults of a command from the environment and the configuration file, by parameter name."""
    sections = settings.read_settings()
    if isinstance(command, click.Group):
        names = {child: name if child == "run" else f"{name}-{child}" for child in command.commands}
        return {child: settings.choose_defaults(command.commands[child], names[child], sections) for child in names}
    return {**settings.choose_defaults(command, name, sections)}


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from ..dependencies import read_version

        click.echo(f"atrous {read_version('atrous') or '(source tree)'}")
        context.exit()


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Convert Caffe networks to PyTorch and ONNX, verify each step, and segment images with a dense CRF."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.params += [*console.verbosity_options(), console.debug_option()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; arguments None for `sys.argv[1:]`."""
    state: dict[str, Any] = {}
    console.set_verbosity(0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not be encodable
    try:
        with _sigterm_as_interrupt():
            code = cli.main(
                arguments, prog_name="atrous", standalone_mode=False, obj=state, auto_envvar_prefix="ATROUS"
            )
            sys.stdout.flush()
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
    except OSError as error:
        if error.errno is None:
            raise
        return _report_os_error(error, state)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: finish the calls in progress, remove temporary files, exit."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _describe_missing(error: ModuleNotFoundError) -> str | None:
    """The missing library of an extra with its pip line; None for any other module."""
    from ..dependencies import OPTIONAL

    name = error.name or ""
    dependency = next((OPTIONAL[m] for m in OPTIONAL if name and f"{m}.".startswith(f"{name}.")), None)
    dependency = dependency or OPTIONAL.get(name.partition(".")[0])
    if dependency is None:
        return None
    assert __package__
    is_converting = f"{__package__.rpartition('.')[0]}.converter" in sys.modules and dependency.module in CONVERTING
    extra = "convert" if is_converting else dependency.extra
    return f'{dependency.distributions[0]} is not installed. Install it: pip install "atrous[{extra}]"'


def _describe_usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "atrous"
    hint = f" Try '{path} --help'" if context is not None else ""
    text = error.format_message().rstrip(".")
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help
        text = "Missing command"
    elif isinstance(error, click.MissingParameter):
        text = " ".join(text.split())  # click lists choices on lines of their own
    return f"{path}: {text}{'' if text.endswith('?') else '.'}{hint}"


def _report_os_error(error: OSError, state: dict[str, Any]) -> int:
    """Report an error of the operating system that no command expected, such as a full disk behind stdout."""
    if error.errno == errno.EPIPE:  # the reader of the pipe has closed it
        code = 1
    else:
        place = f"{error.filename}" if error.filename is not None else "the output cannot be written"
        code = _report(error, f"atrous: {place}: {error.strerror}", BAD_INPUT, state)
    with contextlib.suppress(OSError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:  # keep the interpreter from trying again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _report(error: Exception, line: str, exit_code: int, state: dict[str, Any]) -> int:
    if state.get("debug"):
        traceback.print_exception(error)
    with contextlib.suppress(OSError):  # the stream itself may be the cause
        click.secho(escape_lines(line), err=True, fg="red")
        if state.get("json"):
            report = {"type": type(error).__name__, "message": str(error), "exit_code": exit_code}
            console.print_json(state["json"], {**state.get("kept", {}), "error": report})
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
