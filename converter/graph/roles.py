"""Layer types that a converted net does not compute: data sources become inputs, training-only layers are dropped.

The types are listed per dialect in `dialects/known.py`; only those of no particular fork are here. A type that is
neither listed nor registered as an operator is unsupported.
"""

from __future__ import annotations

from ..dialects.known import DIALECTS

_LOSS = "a loss: only training needs it"
_METRIC = "measures against labels: use `atrous evaluate`"
_WRITER = "writes its bottoms to files: the net's outputs take its place"

DATA_SOURCES = frozenset({"data"}.union(*(dialect.data_layers for dialect in DIALECTS.values())))
"""Layers that read files or memory: their tops become inputs."""

TRAINING_ONLY: dict[str, str] = {
    **dict.fromkeys(("CTCLoss", "TripletLoss", "WeightedSoftmaxWithLoss"), _LOSS),
    "SaveOutput": _WRITER,
    "Silence": "only prevents its bottoms from being printed",
}
"""Layers that only measure, write or train -> the reason for dropping them."""

for _dialect in DIALECTS.values():
    TRAINING_ONLY.update(dict.fromkeys(_dialect.losses, _LOSS))
    TRAINING_ONLY.update(dict.fromkeys(_dialect.metrics, _METRIC))
    TRAINING_ONLY.update(dict.fromkeys(_dialect.writers, _WRITER))

PYTHON_LAYER = "Python"
"""The type of layers whose code is in another file."""
