"""The text parser against protobuf's own (`google.protobuf.text_format`), and against hostile text."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.converter.files.text_parser import parse_text
from atrous.errors import ConverterError, PrototxtError, UnknownFieldError
from atrous.proto import schema


def parse(text: str, message: str = "NetParameter") -> Any:
    return parse_text(text, message).message


def refuse(text: str, message: str = "NetParameter") -> PrototxtError:
    with pytest.raises(PrototxtError) as caught:
        parse_text(text, message)
    return caught.value


# Against protobuf's own parser --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "kind", "least"), [("goldens", "tiny", 258), ("shared_dir", "nets", 135)])
def test_equal_to_protobufs_parser_on_recorded_nets(
    request: pytest.FixtureRequest, folder: str, kind: str, least: int
) -> None:
    compared = 0
    root = request.getfixturevalue(folder)
    paths = sorted((root / "goldens" / kind).glob("*/*.prototxt"), key=lambda path: path.stat().st_size)
    for path in paths[:270]:
        text = path.read_text()
        try:
            wanted = text_format.Parse(text, schema.message("NetParameter")())
        except text_format.ParseError:
            with pytest.raises(PrototxtError):
                parse(text)
            continue
        assert parse(text) == wanted, path
        compared += 1
    assert compared > least


@st.composite
def layers(draw: st.DrawFn) -> Any:
    """A random layer, with strings and numbers of every kind."""
    layer = schema.message("LayerParameter")()
    layer.name = draw(st.text(max_size=20))
    layer.bottom.extend(draw(st.lists(st.text(max_size=8), max_size=3)))
    floats = st.floats(width=32, allow_nan=False)
    layer.loss_weight.extend(draw(st.lists(floats, max_size=3)))
    if draw(st.booleans()):
        layer.convolution_param.kernel_size.extend(draw(st.lists(st.integers(0, 2**32 - 1), max_size=3)))
        layer.convolution_param.axis = draw(st.integers(-(2**31), 2**31 - 1))
        layer.convolution_param.bias_term = draw(st.booleans())
        layer.convolution_param.weight_filler.std = draw(floats)
    if draw(st.booleans()):
        layer.phase = draw(st.sampled_from([0, 1]))
        layer.reshape_param.shape.dim.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)))
    if draw(st.booleans()):
        layer.pooling_param.pool = draw(st.sampled_from([0, 1, 2]))
        layer.relu_param.SetInParent()
    return layer


@given(layers(), st.booleans(), st.booleans())
@settings(deadline=None)
def test_reads_back_what_protobuf_prints(layer: Any, as_utf8: bool, one_line: bool) -> None:
    text = text_format.MessageToString(layer, as_utf8=as_utf8, as_one_line=one_line)
    assert parse(text, "LayerParameter") == layer


# The language -------------------------------------------------------------------------------------------------------


def test_colons_braces_and_separators() -> None:
    net = parse('name: "a"; layer < name: "x" > layer: { name: "y", top: ["t", "u"] } layer [{name:"z"}, <name: "w">]')
    assert [layer.name for layer in net.layer] == ["x", "y", "z", "w"]
    assert list(net.layer[1].top) == ["t", "u"]


def test_strings() -> None:
    assert parse("name: 'it' \"s\" # joined\n 'x'").name == "itsx"
    assert parse(r'name: "\x41\102\n\t\\\"\u00e9\U0001F600"').name == 'AB\n\t\\"é😀'
    assert parse('name: "${NOT_FILLED}"').name == "${NOT_FILLED}"


def test_numbers() -> None:
    def dims(text: str) -> list[int]:
        return list(parse(f"shape {{ dim: [{text}] }}", "InputParameter").shape[0].dim)

    assert dims("0x1F, 017, 0, -5, - 5") == [31, 15, 0, -5, -5]
    filler = parse("value: 1.5f min: -.5 max: 1e-3 mean: inf std: 7", "FillerParameter")
    assert (filler.value, filler.min, filler.mean, filler.std) == (1.5, -0.5, math.inf, 7.0)
    assert math.isnan(parse("value: nan", "FillerParameter").value)


@pytest.mark.parametrize("text", ["true", "t", "1", "True"])
def test_true(text: str) -> None:
    assert parse(f"force_backward: {text}").force_backward


def test_enums_by_name_and_by_bvlcs_number() -> None:
    assert parse("pool: AVE", "PoolingParameter").pool == 1
    assert [parse(f"pool: {number}", "PoolingParameter").pool for number in ("1", "01", "0x1")] == [1, 1, 1]
    assert "use the name" in str(refuse("layers { type: 10041 }"))


def test_empty_messages_are_present() -> None:
    assert parse("layer { relu_param { } include { } }").layer[0].HasField("relu_param")


# Refusals, as the C++ parser refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name: "a" name: "b"', "given twice"),
        ("layer { pooling_param { } pooling_param { } }", "given twice"),
        ("layer { pooling_param { pool: MEAN } }", 'no value "MEAN"'),
        ("layer { convolution_param { num_output: 1.0 } }", "expected an integer"),
        ("layer { convolution_param { num_output: -1 } }", "does not fit"),
        (
            "layer { convolution_param { num_output: N_CLASSES } }",
            "; write ${N_CLASSES} and give --set N_CLASSES=VALUE",
        ),
        ("layer { convolution_param { num_output: 4294967296 } }", "does not fit"),
        ("layer { convolution_param { num_output: 08 } }", "expected an integer"),
        ("layer { lrn_param { alpha: 010 } }", "expected a number"),
        ("layer { lrn_param { alpha: 00.5 } }", "expected a number"),
        ("force_backward: yes", "true or false"),
        ("name: ResNet", "quoted string"),
        ('name: "a', "does not end in its line"),
        ('name "a"', 'expected ":"'),
        ('layer { name: "x"', 'missing "}" of the LayerParameter opened in line 1'),
        ('layer { name: "x" >', "expected a field name"),
        ("}", "expected a field name"),
        ("layer: 3", "to open layer"),
        ("layer { clip_param { min: 0 } }", '"max" is missing'),
        (r'name: "\q"', "escape"),
        (r'name: "\ud800"', "not a character"),
        (r'name: "\xff"', "not UTF-8"),
        ("$NAME", "${NAME}"),
        ("name: @", "unexpected character '@'"),
        ("layer { type: CONVOLUTION }", "layers"),
        ('layers { type: "Convolution" }', "layer {"),
    ],
)
def test_refused(text: str, words: str) -> None:
    assert words in str(refuse(text))


def test_unknown_field_names_line_and_nearest() -> None:
    error = refuse('name: "n"\nlayer {\n  convolution_param {\n    kernal_size: 3\n  }\n}')
    assert isinstance(error, UnknownFieldError)
    assert (error.line, error.column) == (4, 5)
    assert (error.message, error.field) == ("ConvolutionParameter", "kernal_size")
    assert 'did you mean "kernel_size"?' in str(error)


def test_a_misplaced_field_names_its_message() -> None:
    assert "it is a field of NetParameter" in str(refuse("layer { force_backward: true }"))


# What is kept beyond the message ------------------------------------------------------------------------------------


def test_lines_forks_and_templates() -> None:
    parsed = parse_text(
        'name: "${NET}"\nlayers { type: INTERP\n  interp_param { zoom_factor: ${ZOOM} } }\nlayers { name: "b" }',
        "NetParameter",
    )
    assert parsed.lines == {"layers": [2, 4]}
    assert [(use.what, use.dialects, use.line) for use in parsed.forks] == [
        ("V1LayerParameter.LayerType.INTERP", ("deeplab_v1",), 2),
        ("V1LayerParameter.interp_param", ("deeplab_v1",), 3),
    ]
    assert parsed.missing == {"ZOOM": 3}
    assert parsed.in_strings == {"NET": 1}


# Hostile text -------------------------------------------------------------------------------------------------------


def test_size_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.converter.files.text_parser.MAX_TEXT_BYTES", 10)
    assert "the limit is 10" in str(refuse("#" * 11))


@pytest.mark.parametrize(
    "piece",
    ["layer{}", "input_dim:1 ", "{", '"', "\\", "# \n", "layer{", "${A}", "'a'", "0", "[", "-", '"\\', "e", "\ufeff"],
)
def test_time_is_linear(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    start = time.perf_counter()
    for prefix in ("", 'name: "', "name: ", "input_dim: ", "input_dim: ["):
        with pytest.raises(ConverterError):
            parse_text(prefix + text + " @", "NetParameter")
    assert time.perf_counter() - start < 5


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    line: int | None = 1
    try:
        parse(text)
    except PrototxtError as error:
        line = error.line
    assert line is not None


TOKENS = st.sampled_from(
    re.findall(
        r"\S+",
        """layer layers name type : { } < > [ ] , ; - "a" 'b' 1 -2 0x1 1.5 true MAX CONVOLUTION convolution_param
        pad pool ${N} blobs shape dim include phase TEST #\\n""",
    )
)


@given(st.lists(TOKENS, max_size=40).map(" ".join).map(lambda text: text.replace("\\n", "\n")))
@settings(deadline=None, max_examples=300)
def test_what_both_parsers_accept_is_equal(text: str) -> None:
    try:
        ours = parse_text(text, "NetParameter")
    except PrototxtError:
        return
    try:
        theirs = text_format.Parse(text, schema.message("NetParameter")())
    except text_format.ParseError:
        assert ours.missing or "- " in text
        return
    assert ours.message == theirs
