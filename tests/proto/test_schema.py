"""The merged schema against the forks' own schemas, which a comparison of 12 caffe.proto files lists by field."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from atrous.converter.dialects.renumber import enum_values, wire_fields
from atrous.proto import schema

SECTIONS = {
    "deeplab_v1": "deeplab_v1",
    "deeplab_v2": "deeplab_v2",
    "deeplab_v2_xmyqsh": "deeplab_v2_xmyqsh",
    "pspnet": "pspnet",
    "segnet": "segnet",
    "deconvnet": "deconvnet",
    "ssd": "ssd",
    "crfasrnn": "crfasrnn",
    "crfasrnn_crfrnn_branch": "crfasrnn_crfrnn",
    "fyu_dilation": "fyu_dilation",
}
V1_ERA = ("deeplab_v1", "deconvnet")
LEFT_OUT = ("SolverParameter", "SolverState")
OTHERWISE = {
    # Two forks disagree on the type; their texts read the same.
    ("deeplab_v1", "UniqueLabelParameter", "ignore_label"),
}


def read_tables(shared_dir: Path) -> Iterator[tuple[str, list[str]]]:
    """(dialect, cells) of each table row that adds or renumbers a field."""
    dialect = None
    for line in (shared_dir / "docs" / "caffe-dialects.md").read_text().splitlines():
        if line.startswith("## "):
            dialect = SECTIONS.get(line[3:].strip())
        elif dialect and re.match(r"\| \w+ \| \d+ \|", line):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            if cells[4] == "ADDED" or cells[4].startswith("**NUMBER REUSED**"):
                yield dialect, cells


@cache
def read_fields() -> dict[tuple[str, str], Any]:
    """(message, field) -> the field, from caffe.pb itself: works in every version and backend of protobuf."""
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(schema.DESCRIPTOR_SET_PATH.read_bytes()).file
    return {(message.name, field.name): field for message in file.message_type for field in message.field}


def describe(message: str, name: str) -> str:
    """A field's label and type, in the notation of the tables."""
    field = read_fields()[message, name]
    label = descriptor_pb2.FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_")
    kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_")
    return f"{label.lower()} {schema.short_name(field.type_name.removeprefix('.')) or kind.lower()}"


def test_every_field_a_fork_added_is_found_at_its_number(shared_dir: Path) -> None:
    rows = 0
    for dialect, (message, number, name, kind, *_) in read_tables(shared_dir):
        if message in LEFT_OUT:
            continue
        if message == "LayerParameter" and dialect in V1_ERA:
            message = "V1LayerParameter"
        found = wire_fields(message, dialect).get(int(number))
        assert found is not None, (dialect, message, number, name)
        assert found.name == name, (dialect, message, number)
        if (dialect, message, name) not in OTHERWISE:
            wanted = re.sub(r" \[default=.*\]", "", kind).replace(
                "LayerParameter.LayerType", "V1LayerParameter.LayerType"
            )
            assert describe(message, name) == wanted, (dialect, message, name)
        rows += 1
    assert rows > 400


def test_every_default_of_a_fork_is_kept(shared_dir: Path) -> None:
    checked = 0
    for dialect, (message, _, name, kind, *_) in read_tables(shared_dir):
        default = re.search(r"\[default=(.*)\]", kind)
        if message in LEFT_OUT or default is None:
            continue
        if message == "LayerParameter" and dialect in V1_ERA:
            message = "V1LayerParameter"
        field = schema.descriptor(message).fields_by_name[name]
        if field.enum_type is not None:
            assert field.enum_type.values_by_number[field.default_value].name == default[1]
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            assert str(field.default_value).lower() == default[1]
        else:
            assert field.default_value == pytest.approx(float(default[1]), rel=1e-6), (dialect, message, name)
        checked += 1
    assert checked > 150


def test_v1_type_numbers_of_deeplab_and_deconvnet(shared_dir: Path) -> None:
    text = (shared_dir / "docs" / "caffe-dialects.md").read_text()
    types = schema.descriptor("V1LayerParameter").enum_types_by_name["LayerType"].values_by_name
    for section, dialect in (("deeplab_v1", "deeplab_v1"), ("deconvnet", "deconvnet"), ("crfasrnn", "crfasrnn")):
        body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
        added = re.search(r"LayerType \| added ([^|;]*)", body)
        assert added is not None
        values = enum_values("V1LayerParameter.LayerType", dialect)
        for name, number in re.findall(r"(\w+)=(\d+)", added[1]):
            assert values[int(number)] == types[name].number, (dialect, name)
    assert enum_values("V1LayerParameter.LayerType", "deeplab_v1")[39] == types["IMAGE_SEG_DATA"].number


def test_no_private_number_is_a_real_one() -> None:
    """A fork's field must not take a number that BVLC Caffe uses."""
    for name in ("LayerParameter", "V1LayerParameter", "ConvolutionParameter", "PoolingParameter", "BNParameter"):
        for field in schema.descriptor(name).fields:
            if schema.field_wire(name, field.name) is not None:
                assert field.number >= 10000, (name, field.name)


def test_a_fork_field_is_set_and_read_like_any_other() -> None:
    net = schema.message("NetParameter")()
    net.layer.add().convolution_param.hole = 3
    again = schema.message("NetParameter").FromString(net.SerializeToString())
    assert again.layer[0].convolution_param.hole == 3
    assert schema.field_wire("ConvolutionParameter", "hole") == {"deeplab_v1": 17}
    assert schema.field_wire("ConvolutionParameter", "pad") is None


def test_no_message_contains_itself() -> None:
    """The schema bounds the recursion of the readers."""

    def depth(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above
        inner = [field.message_type for field in schema.descriptor(name).fields if field.message_type]
        return 1 + max((depth(schema.short_name(kind.full_name), (*above, name)) for kind in inner), default=0)

    assert depth("NetParameter") < 10


def test_the_default_pool_is_left_alone() -> None:
    from google.protobuf import descriptor_pool

    schema.load_schema()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("atrous.NetParameter")


def test_an_installed_caffe_does_not_collide() -> None:
    """Caffe's generated module registers `caffe.NetParameter` in the default pool; a program may register ours too."""
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from atrous.proto import schema
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
file.message_type.add(name="NetParameter").field.add(name="name", number=1, type=9, label=1)
pool = descriptor_pool.Default()
pool.AddSerializedFile(file.SerializeToString())
for again in descriptor_pb2.FileDescriptorSet.FromString(schema.DESCRIPTOR_SET_PATH.read_bytes()).file:
    again.name = "again.proto"
    pool.AddSerializedFile(again.SerializeToString())
theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))
ours = schema.message("NetParameter")
assert ours.FromString(theirs(name="n").SerializeToString()).name == "n"
assert schema.field_wire("ConvolutionParameter", "hole") == {"deeplab_v1": 17}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("backend", ["upb", "python"])
def test_both_protobuf_backends_build_it(backend: str) -> None:
    code = """
import gc
from atrous.proto import schema
net = schema.message("NetParameter")()
gc.collect()
net.layer.add(name="a").blobs.add().shape.dim.append(3)
assert net.layer[0].blobs[0].shape.dim[0] == 3
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": backend},
    )


def test_caffe_pb_is_compiled_from_caffe_proto(tmp_path: Path) -> None:
    """If this fails after an edit of caffe.proto, run `make schema`."""
    tools = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    source, compiled = schema.DESCRIPTOR_SET_PATH.with_suffix(".proto"), tmp_path / "caffe.pb"
    include = Path(tools.__file__).parent / "_proto"
    arguments = ["", f"-I{include}", f"-I{source.parent}", f"--descriptor_set_out={compiled}", str(source)]
    assert tools.main(arguments) == 0
    fresh, stored = (
        descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        for path in (compiled, schema.DESCRIPTOR_SET_PATH)
    )
    assert fresh == stored
    assert not stored.file[0].HasField("source_code_info")


def test_every_option_is_read() -> None:
    """Each `(wire)` and `(wire_value)` of the text is in the tables, with its numbers."""
    text = schema.DESCRIPTOR_SET_PATH.with_suffix(".proto").read_text()
    loaded = schema.load_schema()
    for option, wires in (("wire", loaded.field_wires), ("wire_value", loaded.value_wires)):
        written = re.findall(rf'(\w+) = \d+\s*\[[^\]]*\({option}\) = "([^"]*)"', text)
        read = [
            (name, " ".join(f"{dialect}:{number}" if number else dialect for dialect, number in wire.items()))
            for (_, name), wire in wires.items()
        ]
        assert len(written) == text.count(f"({option}) =")
        assert sorted(read) == sorted(written)
