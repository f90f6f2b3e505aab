"""Registration of layers, and modules as source."""

from __future__ import annotations

import math

import pytest

from atrous.converter import ModuleSpec, Operator, register_layer
from atrous.converter.layers import find_operator
from atrous.errors import ConverterError


class Mish(Operator):
    """A user's own layer."""


class Other(Operator):
    """Another one."""


def test_registration_can_be_undone() -> None:
    registration = register_layer("MishForThisTest")
    assert registration(Mish) is Mish
    assert find_operator("MishForThisTest") is Mish
    registration.undo()
    assert find_operator("MishForThisTest") is None
    registration.undo()  # does nothing


def test_replacing_needs_to_be_asked_for() -> None:
    builtin = find_operator("Convolution")
    with pytest.raises(
        ConverterError,
        match=r'"Convolution" is already converted by atrous\.converter\.layers\.convolution\.Convolution; to replace '
        r"that conversion, use register_layer\('Convolution', replace=True\)",
    ):
        register_layer("MishForThisTest", "Convolution")(Mish)
    assert (find_operator("MishForThisTest"), find_operator("Convolution")) == (None, builtin)
    registration = register_layer("Convolution", replace=True)
    registration(Mish)
    assert find_operator("Convolution") is Mish
    registration.undo()
    assert find_operator("Convolution") is builtin


def test_the_same_class_may_be_defined_again() -> None:
    """As in a notebook, or by a file that is loaded twice."""
    registration = register_layer("MishForThisTest")
    registration(Mish)
    again = type("Mish", (Operator,), {"__module__": __name__})
    try:
        assert register_layer("MishForThisTest")(again) is again
        with pytest.raises(ConverterError, match=r"already converted by .*\.Mish"):
            register_layer("MishForThisTest")(Other)
    finally:
        registration.undo()


def test_undo_keeps_a_later_registration() -> None:
    first, second = register_layer("MishForThisTest"), register_layer("MishForThisTest", replace=True)
    first(Mish)
    second(Other)
    first.undo()
    assert find_operator("MishForThisTest") is Other
    second.undo()
    assert find_operator("MishForThisTest") is Mish
    first(Mish)
    first.undo()


def test_source_of_a_module() -> None:
    infinite = ModuleSpec("X", {"a": math.inf, "b": (-math.inf, 0.5), "c": (1,), "d": "inf", "e": None})
    assert infinite.source() == 'X(a=float("inf"), b=(float("-inf"), 0.5), c=(1,), d=\'inf\', e=None)'
    assert math.isnan(eval(ModuleSpec("dict", {"a": math.nan}).source())["a"])
    assert ModuleSpec("X", {"a": 0.10000000149011612}).source() == "X(a=0.1)"
