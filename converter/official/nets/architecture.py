"""The architectures by the names that the catalogue uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ....errors import FetchError
from .resnet101 import write_resnet101
from .text import Head as Head
from .vgg16 import write_aspp, write_deeplab, write_largefov, write_msc, write_msc_largefov


@dataclass(frozen=True)
class Architecture:
    """One net."""

    name: str  # as in the catalogue
    # matches the name of the classifier's layer; its group `experiment` is the variable part
    head_layer: re.Pattern[str]
    head_example: str  # an example of that name, for messages
    # (net name, head or None) -> prototxt text; without a head the net ends at its last features
    write: Callable[[str, Head | None], str]
    basis: str  # source of the layers


_FC8 = re.compile(r"fc8_(?P<experiment>.+)")
_FC8_1 = re.compile(r"fc8_(?P<experiment>.+)_1")
_FC1_C0 = re.compile(r"fc1_(?P<experiment>.+?)(_res05|_res075)?_c0")  # one for each of the three sizes
_TEST_NET = "the published test.prototxt"

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("vgg16-4x4", _FC8, "fc8_voc12", write_deeplab, _TEST_NET),
        Architecture("vgg16-largefov", _FC8, "fc8_voc12", write_largefov, _TEST_NET),
        Architecture("vgg16-msc", _FC8, "fc8_voc12", write_msc, _TEST_NET),
        Architecture(
            "vgg16-msc-largefov",
            _FC8,
            "fc8_voc12",
            write_msc_largefov,
            "re-implementations of the published train.prototxt",
        ),
        Architecture("vgg16-aspp", _FC8_1, "fc8_voc12_1", write_aspp, _TEST_NET),
        Architecture("resnet101-msc-aspp", _FC1_C0, "fc1_voc12_c0", write_resnet101, _TEST_NET),
    )
}


def find_architecture(name: str) -> Architecture:
    """The architecture of this name; raises FetchError if there is none."""
    if name not in ARCHITECTURES:
        raise FetchError(f'no architecture "{name}"; the known ones are {", ".join(ARCHITECTURES)}')
    return ARCHITECTURES[name]
