"""model.py: readable, complete, and free of code from an untrusted file."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from atrous.converter import Net, Operator, read_net, register_layer, to_torch
from atrous.converter.export.source import collect_sources, write_model_source
from atrous.converter.export.torch_module import find_module_class
from atrous.converter.layers import ModuleSpec
from atrous.converter.modules import MODULE_CLASSES
from atrous.errors import ExportError

from ..graph.test_names import awkward_net
from ..nets import DEEPLAB, conv, data, layer, random_input, read_seeded, relu

RUN = """
import sys
sys.modules["atrous"] = None  # any import of it fails
sys.path.insert(0, sys.argv[1])
import model, torch
inputs = torch.load(sys.argv[1] + "/inputs.pt", weights_only=True)
net = model.load()
assert not net.training
with torch.no_grad():
    outputs = net(*inputs)
torch.save(outputs, sys.argv[1] + "/outputs.pt")
print(len(list(net.parameters())))
"""


def write_model(net: Net, folder: Path) -> Any:
    """model.py and its weights; returns the torch module."""
    module = to_torch(net)
    (folder / "model.py").write_text(write_model_source(net), encoding="utf-8")
    safetensors.torch.save_model(module, str(folder / "model.safetensors"))
    return module


def run_apart(folder: Path, inputs: list[torch.Tensor]) -> tuple[Any, int]:
    """The outputs of `model.py` in a process with torch but without atrous, and its number of parameters."""
    torch.save(inputs, folder / "inputs.pt")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, str(folder)],
        capture_output=True, text=True, check=False, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "outputs.pt", weights_only=True), int(done.stdout)


def load_here(net: Net, module: Any) -> Any:
    """The class of `model.py`, executed in this process, with the module's weights."""
    code: dict[str, Any] = {"__name__": "model", "__file__": "model.py"}
    exec(compile(write_model_source(net), "model.py", "exec"), code)
    (cls,) = [
        value
        for name, value in code.items()
        if inspect.isclass(value) and value.__module__ == "model" and "layers by Caffe's names" in (value.__doc__ or "")
    ]
    made = cls().eval()
    made.load_state_dict(module.state_dict())
    return made


def assert_same(left: Any, right: Any) -> None:
    if isinstance(left, dict):
        assert list(left) == list(right)
        left, right = list(left.values()), list(right.values())
    torch.testing.assert_close(left, right, rtol=0, atol=0)


# ---- alone with torch

SHARED = "".join(
    conv(name, "data", name, 2, 3, f"dilation: {hole} pad: {hole}", 'param { name: "w" } param { name: "b" }')
    for name, hole in (("one", 1), ("two", 2))
)
KINDS = {
    "deeplab": DEEPLAB,
    "shared": data(1, 2, 6, 6) + SHARED,
    "own classes": data(1, 4, 9, 9)
    + layer("Pooling", "pool", "data", ["x", "mask"], "pooling_param { kernel_size: 3 stride: 2 }")
    + layer("MVN", "mvn", "x", "x")
    + layer("Interp", "up", "x", "y", "interp_param { zoom_factor: 2 }")
    + layer("LRN", "lrn", "y", "z", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_model_runs_where_only_torch_is(kind: str, tmp_path: Path) -> None:
    net = read_seeded(KINDS[kind])
    module = write_model(net, tmp_path)
    inputs = [torch.from_numpy(array) for array in random_input(net).values()]
    outputs, parameters = run_apart(tmp_path, inputs)
    with torch.no_grad():
        assert_same(outputs, module(*inputs))
    assert parameters == len(list(module.parameters()))


def test_shared_parameters_stay_shared() -> None:
    net = read_seeded(KINDS["shared"])
    made = load_here(net, to_torch(net))
    assert made.one.weight is made.two.weight
    assert made.one.bias is made.two.bias


def test_permissive_sharing_of_another_shape_is_loaded_by_value() -> None:
    text = (
        data(1, 2, 6, 6)
        + conv("a", "data", "x", 9, 2, "bias_term: false", 'param { name: "w" }')
        + conv("b", "data", "y", 8, 3, "bias_term: false group: 2", 'param { name: "w" share_mode: PERMISSIVE }')
    )
    net = read_net(text, {"a": [np.arange(72, dtype=np.float32).reshape(9, 2, 2, 2)]})
    module = to_torch(net)
    x = torch.ones(1, 2, 6, 6)
    assert_same(load_here(net, module)(x), module(x))


def test_in_place_and_shared_memory_read_the_right_version() -> None:
    text = data(1, 2, 4, 4) + layer("Split", "s", "data", ["a", "b"])
    text += layer("Power", "w", "a", "a", "power_param { shift: 5 }") + relu("reader", "b", "y") + relu("q", "a")
    net = read_net(text)
    module = to_torch(net)
    x = torch.full((1, 2, 4, 4), -1.0)
    outputs = load_here(net, module)(x)
    assert_same(outputs, module(x))
    assert outputs["y"].unique().tolist() == [4]


# ---- readable


def test_source_reads_like_the_net() -> None:
    source = write_model_source(read_seeded(DEEPLAB))
    assert "self.conv3 = nn.Conv2d(in_channels=8, out_channels=8, kernel_size=3, padding=2, dilation=2)" in source
    assert "        conv3 = self.conv3(pool2)\n        conv3 = self.relu_conv3(conv3)\n" in source
    assert "class MiniDeeplab(nn.Module):" in source
    assert "def forward(self, data: torch.Tensor) -> torch.Tensor:" in source
    assert source.count("class Interp(nn.Module):") == 1
    assert "\nimport numpy" not in source
    assert "\nimport math" not in source


@pytest.mark.parametrize("text", [*KINDS.values(), awkward_net()])
def test_source_is_clean_by_ruffs_own_rules(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(write_model_source(read_seeded(text)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", str(tmp_path / "model.py")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No module named ruff" in done.stderr:
        pytest.skip("ruff is not installed")
    assert done.returncode == 0, done.stdout


# ---- copied classes


@pytest.mark.parametrize("name", sorted(MODULE_CLASSES))
def test_every_module_stands_alone(name: str) -> None:
    """Its collected sources define it where only torch and math are known."""
    text = "from __future__ import annotations\n" + "\n\n".join(collect_sources([name]).values())
    code: dict[str, Any] = {"__name__": "alone"}
    exec("import math, torch\nimport torch.nn.functional as F\nfrom torch import nn", code)
    exec(compile(text, name, "exec"), code)
    made = code[name]
    known = {*code, *dir(__builtins__)} | set(__builtins__ if isinstance(__builtins__, dict) else ())
    for function in [value for value in vars(made).values() if inspect.isfunction(value)]:
        assert set(_globals_of(function.__code__)) <= known, (name, function.__name__)


def _globals_of(code: Any) -> set[str]:
    import dis

    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if inspect.iscode(constant):
            names |= _globals_of(constant)
    return names


def test_arguments_of_modules_are_literals() -> None:
    net = read_seeded(KINDS["own classes"])
    for entry in net.layers:
        for value in entry.operator.module_spec().arguments.values():
            assert ast.literal_eval(repr(value)) == value


class Doubled(torch.nn.Module):
    def __init__(self, factor: float, note: str = "") -> None:
        super().__init__()
        self.factor, self.note = factor, note

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_class_of_a_users_layer_is_copied() -> None:
    place = f"{__name__}:Doubled"

    registration = register_layer("DoubledForThisTest")

    @registration
    class Double(Operator):
        def module_spec(self) -> ModuleSpec:
            return ModuleSpec(place, {"factor": 2.0, "note": f"see {place}"})

    try:
        net = read_net(data(1, 1, 2, 2) + layer("DoubledForThisTest", "d", "data", "y"))
        source = write_model_source(net)
        assert f"self.d = Doubled(factor=2.0, note='see {place}')" in source
        assert load_here(net, to_torch(net))(torch.ones(1, 1, 2, 2)).unique().tolist() == [2]
    finally:
        registration.undo()


def test_two_classes_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = type("Interp", (torch.nn.Module,), {"__module__": __name__})
    monkeypatch.setitem(globals(), "Interp", other)
    assert find_module_class(f"{__name__}:Interp") is other
    with pytest.raises(ExportError, match='two layers define "Interp" differently'):
        collect_sources(["Interp", f"{__name__}:Interp"])


# ---- names of an untrusted file


@pytest.mark.parametrize(
    "name",
    ["None", "true", "class", "interp", "path", "f", "nn", "torch", "load", "", "слой", "3d net", "net", "conv2d"],
)
def test_name_of_the_net_shadows_nothing(name: str, tmp_path: Path) -> None:
    net = read_seeded(
        f'name: "{name}"\n' + data(1, 2, 3, 3) + layer("Interp", "i", "data", "y", "interp_param { zoom_factor: 2 }")
    )
    module = to_torch(net)
    x = torch.rand(1, 2, 3, 3)
    assert_same(load_here(net, module)(x), module(x))
    (tmp_path / "model.py").write_text(write_model_source(net))
    safetensors.torch.save_model(module, str(tmp_path / "model.safetensors"))
    code: dict[str, Any] = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(write_model_source(net), code)
    assert_same(code["load"]()(x), module(x))


HOSTILE = [
    '"); import os; os.system("touch {mark}"); ("',
    "'); open('{mark}', 'w'); ('",
    "\\'); open('{mark}', 'w'); ('",
    "x\n        open('{mark}', 'w')",
    '"""\nopen("{mark}", "w")\n"""',
    "{{open('{mark}', 'w')}}",
    "\u2028open('{mark}', 'w')",
    "a\r\nopen('{mark}', 'w')",
    "__import__('os').system('touch {mark}')",
]


@pytest.mark.parametrize("place", ["layer", "blob", "input", "net", "string"])
def test_hostile_names_are_never_code(place: str, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    for index, form in enumerate(HOSTILE):
        name = form.replace("{mark}", str(mark))
        names = {"layer": "c", "blob": "y", "input": "data", "net": "net", "string": "s", place: name}
        quoted = names["net"].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
        text = f'name: "{quoted}"\n' + data(1, 2, 3, 3, name=names["input"])
        text += conv(names["layer"], names["input"], names["blob"], 2)
        text += conv("other", names["input"], names["string"], 2)
        net = read_seeded(text)
        module = to_torch(net)
        source = write_model_source(net)
        x = torch.rand(1, 2, 3, 3)
        assert_same(load_here(net, module)(x), module(x))
        assert not mark.exists(), (place, index)
        nodes = list(ast.walk(ast.parse(source)))
        named = {node.id for node in nodes if isinstance(node, ast.Name)}
        named |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert named.isdisjoint({"open", "os", "system", "__import__", "exec"}), (place, index)


def test_awkward_names_run_from_source() -> None:
    net = read_seeded(awkward_net())
    module = to_torch(net)
    x = torch.ones(1, 2, 3, 3)
    assert_same(load_here(net, module)(x), module(x))


def test_blobs_called_as_what_the_source_uses() -> None:
    names = ["getattr", "self", "torch", "nn", "F", "super", "dict", "class", "x", "x y", "x_y", "ﬁ", "fi", "1", "__x"]
    text, bottom = data(1, 2, 3, 3, name="print"), "print"
    for index, name in enumerate(names):
        text, bottom = text + layer("Power", f"r/{index}", bottom, name, "power_param { shift: 1 }"), name
    net = read_net(text + relu("last", "x y", "z"))
    module = to_torch(net)
    x = torch.zeros(1, 2, 3, 3)
    outputs = load_here(net, module)(x)
    assert_same(outputs, module(x))
    assert outputs["__x"].unique().tolist() == [len(names)]


@pytest.mark.parametrize("slope", ["inf", "-inf", "nan"])
def test_numbers_without_a_literal(slope: str) -> None:
    net = read_seeded(data(1, 1, 2, 2) + layer("ReLU", "r", "data", "y", f"relu_param {{ negative_slope: {slope} }}"))
    assert repr(load_here(net, to_torch(net)).r.negative_slope) == slope
