"""Reading nets: templates, other kinds of files, and every published and recorded net."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from atrous.converter.files.prototxt import Prototxt, read_prototxt
from atrous.converter.graph.select import filter_layers
from atrous.converter.read import _is_binary
from atrous.errors import NetError, PrototxtError

INPUT = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9\n'


def refuse(source: str | Path, **options: dict[str, str]) -> PrototxtError:
    with pytest.raises(PrototxtError) as caught:
        read_prototxt(source, **options)
    return caught.value


def test_a_v1_net_becomes_v2() -> None:
    text = INPUT + (
        'layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2\n'
        "  convolution_param { num_output: 4 kernel_size: 3 hole: 2 } }\n"
        'layers { name: "i" type: INTERP bottom: "c" top: "i" interp_param { zoom_factor: 8 } }\n'
    )
    net = read_prototxt(text)
    assert net.format == "V1"
    assert [layer.type for layer in net.net.layer] == ["Convolution", "Interp"]
    assert not net.net.layers
    assert net.lines == (2, 4)
    assert list(net.net.input_dim) == [1, 3, 9, 9]
    assert {use.what for use in net.forks} == {
        "ConvolutionParameter.hole",
        "V1LayerParameter.LayerType.INTERP",
        "V1LayerParameter.interp_param",
        'type "Interp"',
    }
    assert [use.line for use in net.forks] == sorted(use.line for use in net.forks)


# Templates ----------------------------------------------------------------------------------------------------------

TEMPLATE = (
    'name: "${NET_ID}"\nlayer { name: "fc8_${EXP}" type: "InnerProduct" bottom: "x" top: "y"\n'
    "  inner_product_param { num_output: ${NUM_LABELS} } }\n"
    '# ${NOT_MEANT}\nlayer { name: "d" type: "Data" data_param { batch_size: ${BATCH} } }'
)


def test_templates_are_filled_in() -> None:
    net = read_prototxt(TEMPLATE, variables={"NUM_LABELS": "21", "EXP": "voc12", "BATCH": "1"})
    assert net.net.layer[0].name == "fc8_voc12"
    assert net.net.layer[0].inner_product_param.num_output == 21
    assert net.net.name == "${NET_ID}"
    assert net.warnings == ()


def test_all_missing_values_are_named_at_once() -> None:
    error = str(refuse(TEMPLATE))
    assert "${NUM_LABELS} (line 3), ${BATCH} (line 5)" in error
    assert "--set NUM_LABELS=VALUE --set BATCH=VALUE" in error
    assert "NET_ID, EXP" in error
    assert "NOT_MEANT" not in error


def test_templates_in_layer_names_cause_a_warning() -> None:
    net = read_prototxt(TEMPLATE, variables={"NUM_LABELS": "21", "BATCH": "1", "UNUSED": "x"})
    assert any("${EXP} (line 2)" in warning for warning in net.warnings)
    assert any("--set UNUSED" in warning for warning in net.warnings)


@pytest.mark.parametrize("value", ['"', "1 }\nlayer {", "a#b", "\\"])
def test_a_template_value_cannot_contain_syntax(value: str) -> None:
    assert "--set NUM_LABELS" in str(refuse(TEMPLATE, variables={"NUM_LABELS": value}))


# What is not a net --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"  \n\n", "empty"),
        (b"\x0a\x03net\xa2\x06\x00\x00\x00", "binary"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (
            b'net: "train_val.prototxt"\nbase_lr: 0.01\n',
            'solver definition (it has "net"), not a net; the net it trains is',
        ),
        (b'train_net: "a.prototxt"\ntest_iter: 100\n', 'it trains is "a.prototxt"'),
        (b"A\nA\n", 'no field "A"'),
    ],
)
def test_other_files_are_recognized(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    error = refuse(path)
    assert words in str(error)
    assert error.path == path


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in str(refuse(tmp_path / "none.prototxt"))
    assert "cannot be read" in str(refuse(tmp_path))
    assert "cannot be read" in str(refuse("a\0b.prototxt"))


def test_comments_in_another_encoding_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes('name: "n"\n# 这是注释\n'.encode("gbk"))
    net = read_prototxt(path)
    assert net.net.name == "n"
    assert "line 2 is not UTF-8" in net.warnings[0]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbfname: "n"\r\nlayer { name: "l" type: "ReLU" }\r\n')
    assert read_prototxt(path).lines == (2,)


# Nets that Caffe refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('layer { name: "a" }', "no type"),
        ('layers { name: "a" }', "no type"),
        ('layer { name: "a" type: "ReLU" }\nlayers { name: "b" type: RELU }', '"layer" and "layers"'),
        ('input: "x" input_dim: 1 input_dim: 2 input_dim: 3\n', "need 4 input_dim entries, found 3"),
        ('input: "x" input: "y" input_shape { dim: 1 }\n', "2 input(s) need"),
        ('input: "x" input_shape { dim: -1 }\n', "negative"),
        ('input: "x" input_shape { dim: [' + ",".join("1" * 33) + "] }\n", "33 axes"),
        ('layer { name: "c" type: "Convolution"\n convolution_param { hole: 2 } }', 'write "dilation"'),
        ('layer { name: "c" type: "Padding"\n padding_param { pad_beg: 2 } }', "layers { }"),
    ],
)
def test_refused(text: str, words: str) -> None:
    assert words in str(refuse(text))


def test_a_v1_field_in_a_v2_net_names_its_line() -> None:
    assert refuse('layer { name: "c" type: "Convolution"\n convolution_param {\n hole: 2 } }').line == 3


def test_hole_of_1_is_no_dilation() -> None:
    """Some tools write it into every layer of a V2 net."""
    text = 'layer { name: "c" type: "Convolution" convolution_param { kernel_size: 3 hole_h: 1 hole_w: 1 } }\n'
    assert not read_prototxt(text).net.layer[0].convolution_param.HasField("hole_h")
    assert 'write "dilation"' in str(refuse(text + text.replace("hole_h: 1", "hole: 2")))


# Text as Windows writes it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_of_windows_is_read(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    text = 'name: "n"\r\ninput: "data"\r\ninput_dim: 1\r\ninput_dim: 3\r\ninput_dim: 8\r\ninput_dim: 8 # Größe\r\n'
    path.write_bytes((text + 'layer { name: "a" type: "ReLU" bottom: "data" top: "a" }\r\n').encode(codec))
    net = read_prototxt(path)
    assert (net.net.name, net.lines, net.warnings) == ("n", (7,), ())
    assert not _is_binary(path)


def test_a_windows_path_gets_advice() -> None:
    with pytest.raises(PrototxtError, match=r"unknown escape \\m; in a Windows path, write / or two backslashes"):
        read_prototxt(
            r'layer { name: "d" type: "Data" top: "x" transform_param { mean_file: "D:\data\mean" } }'.replace(
                "data", "models"
            )
        )


# Everything there is ------------------------------------------------------------------------------------------------

CORPUS_REFUSED = {
    "fcn-fcn-16s-v1": 'has both "layer" and "layers"',
    "misc-bilinear-upsample": 'no field "A"',  # stray lines at its end
}


def test_every_published_net_is_read_or_rejected_with_the_right_reason(shared_dir: Path) -> None:
    formats: Counter[str] = Counter()
    refused = {}
    for folder in sorted((shared_dir / "corpus").iterdir()):
        if not folder.is_dir():
            continue
        source = json.loads((folder / "source.json").read_text())
        try:
            net = read_prototxt(folder / source["file"], variables={"NUM_LABELS": "21"})
        except PrototxtError as error:
            refused[folder.name] = str(error)
            continue
        formats[net.format] += 1
        assert len(net.lines) == len(net.net.layer)
        assert all(layer.type for layer in net.net.layer)
        filter_layers(net, phase="TEST")
    print(f"read {dict(formats)}, refused {sorted(refused)}")
    assert set(refused) == set(CORPUS_REFUSED)
    for name, words in CORPUS_REFUSED.items():
        assert words in refused[name]
    assert formats == {"V2": 161, "V1": 28, "V0": 4}


TEXTUAL_REFUSALS = {
    "bad-include-and-exclude",
    "bad-input-dim-count",
    "bad-layer-and-layers",
    "bad-text-unclosed",
    "bad-unknown-field",
}


@pytest.mark.parametrize(("folder", "kind", "least"), [("goldens", "tiny", 250), ("shared_dir", "nets", 150)])
def test_every_recorded_net_is_read_unless_its_text_is_wrong(
    request: pytest.FixtureRequest, folder: str, kind: str, least: int
) -> None:
    read = 0
    for case in sorted((request.getfixturevalue(folder) / "goldens" / kind).glob("*/case.json")):
        path = case.with_name("net.prototxt")
        if not path.exists():
            continue
        try:
            filter_layers(read_prototxt(path))
            read += 1
            assert path.parent.name not in TEXTUAL_REFUSALS
        except (PrototxtError, NetError):
            assert path.parent.name in TEXTUAL_REFUSALS, path
    assert read > least


def test_every_net_beside_real_weights_is_read(shared_dir: Path) -> None:
    nets: list[Prototxt] = [
        read_prototxt(path) for path in sorted((shared_dir / "weights").glob("*/*.prototxt*")) if path.is_file()
    ]
    assert len(nets) > 20
