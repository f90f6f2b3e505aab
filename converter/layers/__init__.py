"""One file per family of Caffe layers; importing the package registers them all."""

from . import activation as activation
from . import anchors as anchors
from . import batchnorm as batchnorm
from . import color as color
from . import convlstm as convlstm
from . import convolution as convolution
from . import crop as crop
from . import data as data
from . import detection as detection
from . import elementwise as elementwise
from . import linear as linear
from . import normalization as normalization
from . import pooling as pooling
from . import rearrangement as rearrangement
from . import recurrent as recurrent
from . import reduction as reduction
from . import resize as resize
from . import roi as roi
from . import scale as scale
from . import segmentation as segmentation
from . import shape as shape
from . import upsampling as upsampling
from .base import (
    LayerContext,
    ModuleSpec,
    Operator,
    Window,
    count,
    find_operator,
    register_layer,
    registered_name,
    registered_types,
)

__all__ = [
    "LayerContext",
    "ModuleSpec",
    "Operator",
    "Window",
    "count",
    "find_operator",
    "register_layer",
    "registered_name",
    "registered_types",
]
