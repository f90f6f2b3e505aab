"""The table of dialects: complete, the only place that compares names, and extensible by one entry."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import atrous
from atrous.converter.dialects.known import BVLC, DIALECTS, binary_dialects, find_dialect, fork_layer_types
from atrous.errors import NetError
from atrous.proto import schema

ROOT = Path(atrous.__file__).parent.parent


def test_every_dialect_of_the_schema_has_an_entry() -> None:
    loaded = schema.load_schema()
    named = {name for wire in [*loaded.field_wires.values(), *loaded.value_wires.values()] for name in wire}
    assert named <= set(DIALECTS)
    assert [name for name, dialect in DIALECTS.items() if name != dialect.name] == []
    assert next(iter(DIALECTS.values())) is BVLC


def test_fields_of_the_table_exist() -> None:
    messages = {name: schema.descriptor(name).fields_by_name for name in ("LayerParameter", "V1LayerParameter")}
    for dialect in DIALECTS.values():
        for names in dialect.parameters.values():
            assert all(any(name in fields for fields in messages.values()) for name in names), dialect.name
        for what in dialect.replacements:
            message, _, name = what.rpartition(".")
            assert name in schema.descriptor(message).fields_by_name


def test_candidates_of_binaries_come_from_the_schema() -> None:
    assert binary_dialects("V1") == ("bvlc", "deeplab_v1", "deconvnet", "crfasrnn", "hed")
    assert {"bvlc", "deeplab_v2", "pspnet", "segnet", "enet", "ssd"} <= set(binary_dialects("V2"))
    assert "parsenet" not in binary_dialects("V2")  # known from text only
    assert fork_layer_types()["Interp"] == ("deeplab_v1", "deeplab_v2", "pspnet")


def test_unknown_dialects_and_syntaxes_are_rejected() -> None:
    with pytest.raises(NetError, match='unknown dialect "caffe2"; choose one of: bvlc, '):
        find_dialect("caffe2")
    with pytest.raises(NetError, match="V2 syntax, which hed cannot read"):
        find_dialect("hed", "V2")


def _constants(tree: ast.AST) -> list[ast.Constant]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in DIALECTS]


def test_no_other_file_names_a_dialect() -> None:
    """The converter has no such string outside `dialects/`; other packages compare none with an attribute `dialect`."""
    for path in sorted((ROOT / "converter").rglob("*.py")):
        if path.parent.name != "dialects":
            found = _constants(ast.parse(path.read_text()))
            assert not found, f"{path}:{found[0].lineno}: ask a flag of the Dialect instead of comparing its name"
    for folder in ("atrous", "runtime", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare) and "dialect" in ast.dump(node):
                    assert not _constants(node), f"{path}:{node.lineno}"


TOY = '''
import sys
from pathlib import Path
from google.protobuf import descriptor_pb2
from atrous.proto import schema
from atrous.converter.dialects.known import DIALECTS, Dialect

# The schema: message ToyParameter, and a field of LayerParameter that toy's binaries keep in 170.
folder = Path(sys.argv[1])
files = descriptor_pb2.FileDescriptorSet.FromString(schema.DESCRIPTOR_SET_PATH.read_bytes())
messages = files.file[0].message_type
layer = next(message for message in messages if message.name == "LayerParameter")
toy = messages.add(name="ToyParameter")
toy.field.add(name="axis", number=1, label=1, type=5)
field = layer.field.add(name="toy_param", number=10900, label=1, type=11, type_name=".atrous.ToyParameter")
options = schema.message("WireOptions")(wire="toy:170").SerializeToString()
field.options.CopyFrom(descriptor_pb2.FieldOptions.FromString(options))
(folder / "toy.pb").write_bytes(files.SerializeToString())
old, schema.DESCRIPTOR_SET_PATH = schema.load_schema(), folder / "toy.pb"
schema.load_schema.cache_clear()

# The entry.
DIALECTS["toy"] = Dialect("toy", layers=("Toy",), data_layers=("ToyData",), losses=("ToyLoss",), four_axis_blobs=True)

import numpy as np
from atrous import converter
from atrous.converter.files.caffemodel import read_caffemodel
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.writer import write_caffemodel
from atrous.converter.layers import ModuleSpec

@converter.register_layer("Toy")
class Toy(converter.Operator):
    def module_spec(self):
        return ModuleSpec("nn.Identity")

TEXT = """
layer { name: "d" type: "ToyData" top: "data" top: "label" }
layer { name: "t" type: "Toy" bottom: "data" top: "t" toy_param { axis: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "t" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "ToyLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
shapes = {"data": (1, 2, 4, 5)}
net = converter.read_net(TEXT, input_shapes=shapes)
assert net.dialect == "toy", net.dialect_evidence
assert [item.name for item in net.layers] == ["t", "ip"] and [item.name for item in net.dropped] == ["loss"]
assert net.outputs[0].shape == (1, 3, 1, 1), net.outputs[0].shape

path = folder / "toy.caffemodel"
arrays = [np.ones((1, 1, 3, 40), np.float32), np.ones((1, 1, 1, 3), np.float32)]
assert write_caffemodel(path, read_prototxt(TEXT), {"ip": arrays}) == "toy"
weights = read_caffemodel(path)
assert weights.dialect.name == "toy", weights.dialect
assert b"\\xd2\\x0a" in path.read_bytes()  # the tag of field 170
assert converter.read_net(None, weights, input_shapes=shapes).dialect == "toy"
'''


def test_a_dialect_is_one_entry_and_its_schema(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", TOY, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
