"""The command line as a whole: quick help, exit codes, one line per error, hostile names, broken streams."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from atrous.converter.files.writer import write_caffemodel
from atrous.errors import BackendError, InputError
from atrous.scripts import console
from atrous.scripts.main import COMMANDS, MODULES, main

from ..converter.nets import DEEPLAB, read_seeded
from ..processes import child_env
from .running import run_atrous, run_with

HELP_LIMIT_S = 0.3
TRIES = 3
HEAVY = ("torch", "onnx", "onnxruntime", "google.protobuf", "numpy", "rich", "pydantic", "PIL")


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)])
def test_help_is_quick_and_light(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from atrous.scripts.main import main\n"
        f"code = main([*{arguments!r}, '--help']); print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    times_s = []
    for _ in range(TRIES):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = os.times()
        # Processor time, so that a busy machine does not count against the command line.
        times_s.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert "Usage: atrous" in done.stdout
    assert not set(HEAVY) & set(done.stderr.split())
    assert min(times_s) < HELP_LIMIT_S


def test_help_lists_all_commands() -> None:
    outcome = run_atrous("--help")
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.stdout for name in COMMANDS)
    assert run_atrous().stdout == outcome.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_debug(name: str) -> None:
    command = importlib.import_module(f"atrous.scripts.{MODULES.get(name, name)}").command
    assert isinstance(command, click.Command)
    help_text = run_atrous(name, "--help").stdout
    assert "--json" in help_text
    assert help_text.count("--debug") == 1


def test_version() -> None:
    assert run_atrous("--version").stdout.startswith("atrous ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["--frob"], "atrous: No such option"),
        (["doctor", "--frob"], "atrous doctor: No such option"),
        (["precision", "."], "Missing option '--to'. Choose from: fp16, bf16, int8, fp8. Try"),
        (["export"], "atrous export: Missing command. Try"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], line: str) -> None:
    outcome = run_atrous(*arguments)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert line in outcome.stderr
    assert "--help'" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """A command `fail` that raises the class it returns; change `fail.error` to raise another."""

    @click.command()
    @click.argument("kind")
    @console.json_option
    def command(kind: str, as_json: bool) -> None:
        raise {"input": InputError("wrong"), "backend": BackendError("absent"), "bug": ZeroDivisionError("bug")}[kind]

    module = ModuleType("atrous.scripts.fail")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "atrous.scripts.fail", module)
    monkeypatch.setitem(COMMANDS, "fail", "Fail.")
    return InputError


@pytest.mark.usefixtures("failing")
class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "code", "line"), [("input", 2, "atrous: wrong\n"), ("backend", 3, "atrous: absent\n")]
    )
    def test_one_line(self, capsys: pytest.CaptureFixture[str], kind: str, code: int, line: str) -> None:
        assert main(["fail", kind]) == code
        assert capsys.readouterr() == ("", line)

    @pytest.mark.parametrize("arguments", [["--debug", "fail", "input"], ["fail", "input", "--debug"]])
    def test_debug_shows_the_traceback(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        assert main(arguments) == 2
        assert "Traceback" in capsys.readouterr().err

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["fail", "backend", "--json"]) == 3
        captured = capsys.readouterr()
        assert json.loads(captured.out) == {
            "schema_version": 1,
            "command": "fail",
            "error": {"type": "BackendError", "message": "absent", "exit_code": 3},
        }
        assert captured.err == "atrous: absent\n"

    def test_a_bug_is_not_hidden(self) -> None:
        with pytest.raises(ZeroDivisionError):
            main(["fail", "bug"])


def test_converter_errors_are_mistakes_too(failing: object, capsys: pytest.CaptureFixture[str]) -> None:
    errors = importlib.import_module("atrous.errors")

    @click.command()
    def command() -> None:
        raise errors.VerificationError("differs")

    sys.modules["atrous.scripts.fail"].command = command  # type: ignore[attr-defined]
    assert main(["fail"]) == 1
    assert capsys.readouterr().err == "atrous: differs\n"


def test_interrupt(failing: object, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def command() -> None:
        raise KeyboardInterrupt

    sys.modules["atrous.scripts.fail"].command = command  # type: ignore[attr-defined]
    assert main(["fail"]) == 130
    assert capsys.readouterr().err == "atrous: interrupted\n"


def test_exit_code_of_a_command(failing: object) -> None:
    @click.command()
    @click.pass_context
    @click.argument("how")
    def command(context: click.Context, how: str) -> int | None:
        if how == "exit":
            context.exit(1)
        return 1 if how == "return" else None

    sys.modules["atrous.scripts.fail"].command = command  # type: ignore[attr-defined]
    assert [main(["fail", how]) for how in ("exit", "return", "fall")] == [1, 1, 0]


def test_importing_no_command_for_another() -> None:
    code = "import sys; from atrous.scripts.main import main; main(['doctor', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "atrous.scripts.doctor" in done.stdout.split()
    assert "atrous.scripts.segment" not in done.stdout.split()


@pytest.mark.parametrize(
    ("library", "arguments", "distribution"),
    [
        ("torch", ["convert", "net.prototxt", "net.caffemodel", "-o", "b"], 'torch'),
        ("google.protobuf", ["inspect", "net.prototxt"], 'protobuf'),
    ],
)  # fmt: skip
def test_missing_library_is_the_pip_line(library: str, arguments: list[str], distribution: str, tmp_path: Path) -> None:
    net = read_seeded(DEEPLAB)
    layers = {layer.name: layer for layer in net.layers if layer.parameters}
    rows = [(n, x.type, [net.parameters[k] for k in x.parameters]) for n, x in layers.items()]
    (tmp_path / "net.prototxt").write_text(DEEPLAB)
    write_caffemodel(tmp_path / "net.caffemodel", "net", rows)
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"from atrous.scripts.main import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=child_env(), capture_output=True, text=True, check=False
    )
    line = f'atrous: {distribution} is not installed. Install it: pip install "atrous[convert]"\n'
    assert (done.returncode, done.stderr) == (3, line)


def test_a_missing_module_of_our_own_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'atrous.nowhere'", name="atrous.nowhere")

    monkeypatch.setattr("atrous.scripts.main.cli.main", lambda *_, **__: fail())
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        main([])


@pytest.mark.usefixtures("failing")
class TestSystemErrors:
    def run(self, error: OSError, *arguments: str) -> int:
        @click.command()
        @console.json_option
        def command(as_json: bool) -> None:
            raise error

        sys.modules["atrous.scripts.fail"].command = command  # type: ignore[attr-defined]
        return main(["fail", *arguments])

    def test_with_a_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(PermissionError(13, "Permission denied", "a/b.png"), "--json") == 2
        captured = capsys.readouterr()
        assert captured.err == "atrous: a/b.png: Permission denied\n"
        assert json.loads(captured.out)["error"]["exit_code"] == 2

    def test_without_a_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(OSError(28, "No space left on device")) == 2
        assert capsys.readouterr().err == "atrous: the output cannot be written: No space left on device\n"

    def test_an_os_error_without_a_number_is_a_bug(self) -> None:
        with pytest.raises(OSError, match="odd"):
            self.run(OSError("odd"))


SIGTERM = """
import os, signal, sys, time
from types import ModuleType
import click
from atrous.scripts import main

@click.command()
def command():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    finally:
        print("cleaned")

sys.modules["atrous.scripts.fail"] = module = ModuleType("atrous.scripts.fail")
module.command = command
main.COMMANDS["fail"] = "Fail."
code = main.main(["fail"])
print(code, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_sigterm_is_an_interruption() -> None:
    """In a process of its own: a test runner may run tests outside of the main thread, which gets the signals."""
    line = [sys.executable, "-c", SIGTERM]
    done = subprocess.run(line, env=child_env(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("cleaned\n130 True\n", "atrous: interrupted\n")


# ---- hostile names

HOSTILE = "x\x1b]0;owned\x07\x1b[2K\natrous: all passed\u202e"


def quote(name: str) -> str:
    return '"' + name.replace("\n", "\\n") + '"'


@pytest.mark.parametrize("kind", ["ReLU", "Unknown"])
def test_names_of_layers_are_escaped(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'name: {quote(HOSTILE)} input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8\n'
        f'layer {{ name: {quote(HOSTILE)} type: {quote(kind)} bottom: "data" top: {quote(HOSTILE)} }}\n'
    )
    assert main(["inspect", str(path)]) == (0 if kind == "ReLU" else 1)
    assert_harmless(*capsys.readouterr())


def test_names_in_errors_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / HOSTILE)]) == 2
    assert_harmless(*capsys.readouterr())
    assert main(["inspect", HOSTILE]) == 2
    assert_harmless(*capsys.readouterr())


def assert_harmless(out: str, err: str) -> None:
    text = out + err
    assert "owned" in text
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("atrous: all passed") for line in text.splitlines())


def test_a_misspelled_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_with(capsys, "segmnet")
    assert (code, out) == (2, "")
    assert err == "atrous: No such command 'segmnet': did you mean 'segment'? Try 'atrous --help'\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_pages_have_no_type_names_of_click(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_with(capsys, name, "--help")
    assert "INTEGER RANGE" not in out
    assert "FLOAT RANGE" not in out


def test_long_help_pages_have_sections(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_with(capsys, "segment", "--help")
    titles = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert {"Images and labels:", "Size and memory:", "Network:", "Dense CRF:", "Results:"} <= set(titles)
    assert titles[-1] == "Options:"
    assert out.index("Network:") < out.index("--backend") < out.index("Dense CRF:") < out.index("--fast-crf")


class TestVerbosity:
    @pytest.fixture(autouse=True)
    def command_that_talks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @click.command()
        @console.json_option
        def command(as_json: bool) -> None:
            logging.getLogger("atrous.runtime").info("what happens")
            logging.getLogger("atrous.runtime").debug("in detail")
            console.print_warning("beware")
            with console.show_steps() as show:
                show("first step")
            click.echo("result")

        module = ModuleType("atrous.scripts.talk")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "atrous.scripts.talk", module)
        monkeypatch.setitem(COMMANDS, "talk", "Talk.")

    def test_levels(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_with(capsys, "talk") == (0, "result\n", "beware\n")
        assert run_with(capsys, "talk", "-q") == (0, "result\n", "")
        for arguments in (["talk", "-v"], ["-v", "talk"]):
            _, _, err = run_with(capsys, *arguments)
            assert "INFO atrous.runtime: what happens" in err
            assert "INFO atrous: first step" in err
            assert "detail" not in err
        assert "DEBUG atrous.runtime: in detail" in run_with(capsys, "talk", "-vv")[2]
        assert run_with(capsys, "talk") == (0, "result\n", "beware\n")  # nothing is left of the calls before
