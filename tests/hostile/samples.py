"""Table of hostile samples: file name -> bytes. Run this file to write them to `files/`.

The suffix is the format that a file claims to have. `accepted-` marks unusual but valid files; readers must reject all
others.
"""

from __future__ import annotations

from pathlib import Path

from atrous.wire import FIXED32, FIXED64, LENGTH, VARINT, encode_block, encode_tag, encode_varint

FOLDER = Path(__file__).with_name("files")


def number(field: int, value: int) -> bytes:
    return encode_tag(field, VARINT) + encode_varint(value)


def layer(*parts: bytes) -> bytes:
    return encode_block(100, encode_block(1, b"l") + encode_block(2, b"Convolution") + b"".join(parts))


def blob(shape: bytes, data: bytes = b"") -> bytes:
    return encode_block(7, (encode_block(7, encode_block(1, shape)) if shape else b"") + data)


FLOATS = encode_block(5, bytes(16))
HUGE = encode_varint(2**63 - 1)

CAFFEMODELS = {
    "accepted-empty-layer": encode_block(100, b""),
    "accepted-name-with-path": encode_block(
        100, encode_block(1, b"../../etc/passwd") + encode_block(2, b"ReLU") + encode_block(1, b"class")
    ),
    "accepted-name-not-utf8": encode_block(100, encode_block(1, b"\xff\xfe") + encode_block(2, b"ReLU")),
    "accepted-zero-dims": layer(blob(b"\x00" * 32)),
    "accepted-unknown-fields": encode_block(9999, b"?") + layer(encode_block(9999, b"\xff" * 20)),
    "accepted-wrong-wire-types": layer(number(1, 5), number(7, 5), encode_tag(3, FIXED64) + bytes(8)),
    "length-past-the-end": encode_tag(100, LENGTH) + encode_varint(1 << 40),
    "length-of-64-bits": encode_tag(100, LENGTH) + b"\xff" * 9 + b"\x01",
    "length-never-ends": encode_tag(100, LENGTH) + b"\xff" * 64,
    "tag-of-field-zero": b"\x00\x00",
    "groups-nested": encode_tag(100, 3) * 5000,
    "shape-overflows": layer(blob(HUGE * 8, FLOATS)),
    "shape-negative": layer(blob(b"\xff" * 9 + b"\x01", FLOATS)),
    "shape-of-many-axes": layer(blob(b"\x01" * 4000, FLOATS)),
    "shape-claims-more": layer(blob(b"\x80\x80\x80\x80\x01", FLOATS)),
    "shape-legacy-overflows": layer(
        encode_block(7, b"".join(number(axis, 2**31 - 1) for axis in (1, 2, 3, 4)) + FLOATS)
    ),
    "data-of-odd-length": layer(blob(b"\x04", encode_block(5, bytes(15)))),
    "data-in-many-pieces": layer(blob(b"\x00", encode_block(5, b"") * 20000)),
    "raw-data-of-no-type": layer(blob(b"\x04", number(10, 77) + encode_block(12, bytes(8)))),
    "unpacked-then-cut": layer(blob(b"\x04"))[:-1] + (encode_tag(5, FIXED32) + bytes(4)) * 100,
    "many-empty-layers": encode_block(100, b"") * 20000,
    "many-empty-blobs": encode_block(100, encode_block(7, encode_block(7, b"\x08\x00")) * 40000),
    "name-of-a-megabyte": encode_block(100, encode_block(1, b"x" * (1 << 20))),
    "two-ages": encode_block(2, encode_block(4, b"a")) + layer(),
    "zip-bomb-start": b"PK\x03\x04" + bytes(60),
    "text": b'name: "net"\nlayer { }',
}

DEEP = b"layer { include { " * 2000
PROTOTXTS = {
    "accepted-names-with-paths": b'layer { name: "../../etc/passwd" type: "ReLU" bottom: "class" top: "\\001" }',
    "accepted-cyclic-bottoms": b'layer { name: "a" type: "ReLU" bottom: "b" top: "a" }\n'
    b'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }',
    "nested-deep": DEEP,
    "braces-only": b"{" * 100000,
    "brackets-only": b"layer: " + b"[" * 100000,
    "string-never-closed": b'name: "' + b"a" * 100000,
    "string-of-escapes": b'name: "' + b"\\" * 100001,
    "strings-adjacent": b"input_dim: " + b'"a" ' * 50000,
    "number-of-100000-digits": b"input_dim: " + b"9" * 100000,
    "float-of-100000-digits": b'layer { type: "LRN" lrn_param { alpha: 1e' + b"9" * 100000 + b"x } }",
    "minus-signs": b"input_dim: " + b"-" * 100000 + b"1",
    "unknown-name-of-100000": b"a" * 100000 + b": 1",
    "enum-name-of-100000": b"layers { type: " + b"A" * 100000 + b" }",
    "template-unclosed": b"input_dim: ${" + b"A" * 100000,
    "templates-many": b"".join(b"input_dim: ${A%d} " % index for index in range(5000)),
    "input-axes-many": b'input: "x" input_shape { dim: [' + b"1," * 10000 + b"1] }",
    "input-negative": b'input: "x" input_shape { dim: -9223372036854775808 }',
    "nul-bytes": b'name: "a"\0\0',
    "not-utf8": b"\xff\xfe\xff" * 1000,
    "colons": b":" * 100000,
    "comment-only-backslash": b"#" + b"\\" * 10000 + b"\n}",
    "separators": b'name: "a"' + b"," * 100000,
    "required-missing": b'layer { type: "Clip" clip_param { } }',
}

MEANS = {
    "huge": number(1, 1) + number(2, 2**31 - 1) + number(3, 2**31 - 1) + number(4, 2**31 - 1) + FLOATS,
    "negative": number(1, 2**64 - 1) + FLOATS,
    "flat": encode_block(7, encode_block(1, b"\x04")) + FLOATS,
}

SAMPLES: dict[str, bytes] = {
    **{f"{name}.caffemodel": data for name, data in CAFFEMODELS.items()},
    **{f"{name}.prototxt": data for name, data in PROTOTXTS.items()},
    **{f"{name}.binaryproto": data for name, data in MEANS.items()},
}
MAX_SAVED_BYTES = 4096
"""The tests generate larger samples, which differ from small ones by repetition only."""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, data in SAMPLES.items():
        if len(data) <= MAX_SAVED_BYTES:
            (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
