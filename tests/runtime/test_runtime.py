"""The public names exist, and importing the runtime stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from atrous import runtime

LIGHT = "import sys; from atrous import runtime; from atrous import errors; print(*sorted(sys.modules))"


def test_all_names_exist() -> None:
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None, name
    assert set(runtime.__all__) <= set(dir(runtime))
    with pytest.raises(AttributeError, match="nothing"):
        _ = runtime.nothing  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    loaded = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "pydantic", "PIL", "atrous.converter"} & set(loaded)


def test_serving_needs_no_converter() -> None:
    """All of the runtime but its optional backends loads where torch, protobuf and onnx are absent."""
    code = (
        "import sys\n"
        "absent = ('torch', 'google.protobuf', 'onnx', 'atrous.converter', 'atrous.proto')\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from atrous import runtime\n"
        "for name in runtime.__all__: getattr(runtime, name)\n"
        "from atrous.runtime.backends import onnxruntime, fake\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
