"""The public names, and the cost of importing them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from atrous import converter


def test_every_public_name_is_there_and_no_other() -> None:
    assert converter.__all__ == sorted(converter.__all__)
    assert set(converter._HOMES) <= set(converter.__all__) <= set(dir(converter))
    for name in converter.__all__:
        value = getattr(converter, name)
        assert value.__name__.rpartition(".")[2] == name
        assert vars(converter)[name] is value, "each name is imported once"
    with pytest.raises(AttributeError, match="has no attribute 'convert'"):
        _ = converter.convert


def test_reading_a_net_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    """`atrous inspect` and `--help` must not pay for them."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = sys.modules['onnxruntime'] = None\n"
        "from atrous.converter import read_net, summarize_layers\n"
        'text = "input: \\"x\\" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9\\n"\n'
        'text += "layer { name: \\"r\\" type: \\"ReLU\\" bottom: \\"x\\" top: \\"y\\" }\\n"\n'
        "print(len(summarize_layers(read_net(text))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
