"""Small files that might cost much, made from the schema: `python costly.py STEP START` reads every STEP-th of them.

A file that takes more than `MAX_SECONDS` of CPU time or `MAX_GROWTH` bytes of memory, or raises anything but an
AtrousError, is printed as a line of JSON. Files have at most 64 KiB. Families:

1. Per layer type and scalar of its parameters: the largest values.
2. Per layer type and repeated field: the file full of it; and per pair of repeated fields: half each.
3. Per layer type and size of its inputs: the largest values.
4. Per layer type: a file of such layers side by side, in a chain, in place, and one layer of very many blobs.
5. Per message of a caffemodel and field number: the file full of that field.
"""

from __future__ import annotations

import itertools
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from atrous.converter import read_net
from atrous.converter.files.caffemodel import read_caffemodel, read_mean
from atrous.converter.files.text_schema import find_layout
from atrous.converter.layers import registered_types
from atrous.errors import AtrousError
from atrous.proto import schema
from atrous.wire import LENGTH, VARINT, encode_block, encode_tag

MAX_SECONDS = 1.0
MAX_GROWTH = 200 << 20
SIZE = 63 << 10
NETS = Path(__file__).parents[1] / "goldens" / "nets"
HEAD = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
LARGE_SIZES = ("20000", "1000000", "2147483647", "0")
#: kind of number in protobuf's Python interface -> large values
LARGE = {
    "int": ("2147483647", "30000", "1000000", "-1", "-2147483648"),
    "uint": ("4294967295", "30000", "1000000"),
    "float": ("1e30", "30000", "1e-30", "1e7"),
}
Field = Any


def fill(item: Callable[[int], str], size: int = SIZE) -> str:
    """Items until `size` characters are full."""
    parts, length = [], 0
    for index in itertools.count():
        part = item(index)
        length += len(part)
        if length > size:
            return "".join(parts)
        parts.append(part)
    raise AssertionError


def list_scalars(field: Field) -> tuple[str, ...]:
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64):
        return LARGE["int"]
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return LARGE["uint"]
    return LARGE["float"] if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE) else ()


def write_value(field: Field, index: int) -> str:
    """A value of the field; numbers and texts differ by index."""
    if field.cpp_type == field.CPPTYPE_STRING:
        return f'"s{index}"'
    if field.cpp_type == field.CPPTYPE_BOOL:
        return "true"
    if field.cpp_type == field.CPPTYPE_ENUM:
        return str(field.enum_type.values[0].name)
    return str(index + 2)


def is_repeated(field: Field) -> bool:
    return find_layout(schema.short_name(field.containing_type.full_name)).fields[field.name].repeated


def make_bodies(field: Field) -> Iterator[tuple[str, str]]:
    """Name and text of each hostile content of a parameter message."""
    name, inner = field.name, field.message_type.fields
    for item in inner:
        if item.message_type:
            if is_repeated(item):
                yield f"{item.name} filled", f"{name} {{ {fill(lambda _, i=item: f'{i.name} {{ }} ')} }}"
            for sub in item.message_type.fields:
                for value in list_scalars(sub):
                    yield f"{item.name}.{sub.name} = {value}", f"{name} {{ {item.name} {{ {sub.name}: {value} }} }}"
            continue
        for value in list_scalars(item):
            yield f"{item.name} = {value}", f"{name} {{ {item.name}: {value} }}"
    repeated = [item for item in inner if is_repeated(item) and not item.message_type]
    for item in repeated:
        yield f"{item.name} filled", f"{name} {{ {fill(lambda n, i=item: f'{i.name}: {write_value(i, n)} ')} }}"
    for pair in itertools.combinations(repeated, 2):
        halves = (fill(lambda n, i=item: f"{i.name}: {write_value(i, n)} ", SIZE // 2) for item in pair)
        yield f"{pair[0].name} and {pair[1].name} filled", f"{name} {{ {' '.join(halves)} }}"


def read_bases() -> dict[str, str]:
    """Layer type -> the text of a net that has it."""
    bases: dict[str, str] = {}
    for path in sorted(NETS.glob("*.prototxt")):
        text = path.read_text()
        try:
            net = read_net(text)
        except AtrousError:
            continue
        for layer in net.layers:
            bases.setdefault(layer.type, text)
    for kind in registered_types():
        bases.setdefault(kind, HEAD + f'layer {{ name: "l" bottom: "data" top: "t" type: "{kind}" }}\n')
    return bases


def make_texts() -> Iterator[tuple[str, str]]:
    """Families 1 to 4, as name and prototxt."""
    parameters = [field for field in schema.message("LayerParameter").DESCRIPTOR.fields if field.message_type]
    for kind, text in sorted(read_bases().items()):
        places = list(re.finditer(rf'type:\s*"{re.escape(kind)}"', text))
        own = [field for field in parameters if re.search(rf"\b{field.name}\b", text)]
        own += [field for field in parameters if field.message_type.name.lower().startswith(kind.lower())]
        for field in dict.fromkeys(own) if places else ():
            at = places[-1].start()
            for what, body in make_bodies(field):
                yield f"{kind}: {what}", f"{text[:at]}{body}\n{text[at:]}"
        dims = list(re.finditer(r"dim: *\d+", text))
        for dim, size in itertools.product(dims, LARGE_SIZES):
            yield f"{kind}: {dim[0]} = {size}", f"{text[: dim.start()]}dim: {size}{text[dim.end() :]}"
        for size in LARGE_SIZES if len(dims) >= 4 else ():
            yield f"{kind}: {size} square", f"{text[: dims[2].start()]}dim: {size} dim: {size}{text[dims[3].end() :]}"
    for kind in registered_types():
        for shape, make in SHAPES.items():
            yield f"{kind}: {shape}", HEAD + make(kind)


def make_layer(kind: str, index: int, bottoms: str, top: str) -> str:
    return f'layer {{ name: "l{index}" type: "{kind}" {bottoms}top: "{top}" }}\n'


def name_previous(index: int) -> str:
    return f'bottom: "{f"t{index - 1}" if index else "data"}" '


SHAPES: dict[str, Callable[[str], str]] = {
    "side by side": lambda kind: fill(lambda n: make_layer(kind, n, 'bottom: "data" ', f"t{n}")),
    "in a chain": lambda kind: fill(lambda n: make_layer(kind, n, name_previous(n), f"t{n}")),
    "in a chain of pairs": lambda kind: fill(lambda n: make_layer(kind, n, 2 * name_previous(n), f"t{n}")),
    "in place": lambda kind: fill(lambda n: make_layer(kind, 0, 'bottom: "data" ', "data")),
    "many tops": lambda kind: f'layer {{ type: "{kind}" bottom: "data" {fill(lambda n: f"""top: "t{n}" """)} }}',
    "many bottoms": lambda kind: f'layer {{ type: "{kind}" top: "t" {fill(lambda n: """bottom: "data" """)} }}',
    "many of both": lambda kind: f'layer {{ type: "{kind}" {fill(lambda n: f"""bottom: "data" top: "t{n}" """)} }}',
}
#: message of a caffemodel -> its bytes around a content
WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "net": lambda content: content,
    "layer": lambda content: encode_block(100, content),
    "V1 layer": lambda content: encode_block(2, content),
    "V0 layer": lambda content: encode_block(2, encode_block(1, content)),
    "blob": lambda content: encode_block(100, encode_block(7, content)),
    "shape": lambda content: encode_block(100, encode_block(7, encode_block(7, content))),
}


def make_binaries() -> Iterator[tuple[str, bytes]]:
    """Family 5, as name and bytes."""
    numbers = (*range(1, 50), *range(98, 150))
    for (kind, wrap), number in itertools.product(WRAPS.items(), numbers):
        for what, one in (
            ("numbers", encode_tag(number, VARINT) + b"\x01"),
            ("empty messages", encode_tag(number, LENGTH) + b"\0"),
            ("messages", encode_block(number, encode_block(1, b"\x01"))),
        ):
            yield f"{kind}: field {number} filled with {what}", wrap(one * (SIZE // len(one)))


def make_readers(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name of each file and a function that reads it."""
    for name, text in make_texts():
        yield name, lambda text=text: read_net(text)
    path = folder / "w.caffemodel"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            with read_caffemodel(path) as file:
                for blob in (blob for layer in file for blob in layer.blobs):
                    blob.array.sum()
                file.read_structure()
        finally:
            read_mean(path)

    for name, data in make_binaries():
        yield name, lambda data=data: read(data)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def main(step: int, start: int) -> None:
    tried, held = 0, peak()
    with tempfile.TemporaryDirectory() as folder:
        for name, read in itertools.islice(make_readers(Path(folder)), start, None, step):
            tried += 1
            before, problem = time.process_time(), ""
            try:
                read()
            except AtrousError:
                pass
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            seconds, grown = time.process_time() - before, peak() - held
            if seconds > MAX_SECONDS:
                problem = f"{seconds:.1f} s"
            if grown > MAX_GROWTH:
                problem, held = f"{grown >> 20} MiB", peak()
            if problem:
                print(json.dumps({"file": name, "problem": problem[:300]}), flush=True)
    print(json.dumps({"tried": tried}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
