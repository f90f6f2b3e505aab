"""The writer of protobuf's text format, read back by protobuf itself."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, text_format, wrappers_pb2

from atrous.runtime.export.text_format import Word, write_text


@pytest.mark.parametrize(
    "text", ["", "plain", 'a "quoted" \\ back', "line\nbreak\ttab\r", "größe 汉 🙂", "\x00\x7f\x1b"]
)
def test_strings(text: str) -> None:
    written = write_text({"value": text})
    assert written.isascii()
    assert text_format.Parse(written, wrappers_pb2.StringValue()).value == text


def test_messages_lists_and_enums() -> None:
    fields = [
        {"name": "a", "number": 1, "type": Word("TYPE_UINT32"), "options": {"packed": True, "deprecated": False}},
        {"name": "b", "number": -2, "label": Word("LABEL_REPEATED")},
    ]
    message = {"name": "M", "field": fields, "reserved_name": ["x", "y"], "oneof_decl": []}
    parsed = text_format.Parse(write_text(message), descriptor_pb2.DescriptorProto())
    assert [field.name for field in parsed.field] == ["a", "b"]
    first, second = parsed.field
    assert (first.type, first.options.packed, first.options.deprecated) == (first.TYPE_UINT32, True, False)
    assert (second.number, second.label) == (-2, second.LABEL_REPEATED)
    assert list(parsed.reserved_name) == ["x", "y"]
    assert not parsed.oneof_decl


def test_lists_of_integers() -> None:
    parsed = text_format.Parse(write_text({"path": (4, -1), "span": []}), descriptor_pb2.SourceCodeInfo.Location())
    assert list(parsed.path) == [4, -1]
    assert not parsed.span
