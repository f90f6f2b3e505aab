"""The image size a net was made for, and whether images are resized to it by default.

Some nets label an image at its own size: DeepLab pads it to 8k + 1 (or to the crop of its data layer), FCN takes any
size and crops the scores. The size in their prototxt is an example, or a minimum. The others (encoders with decoders,
nets of one fixed size) were trained and published at one size, which is the prototxt's.
"""

from __future__ import annotations

from ...bundle.manifest import MadeFor
from ...errors import ExportError
from .deploy import Deployment

_MIN_SIDE = 32  # smaller declared sizes are placeholders, such as 1 x 1


def choose_made_for(plan: Deployment, given: MadeFor | None) -> MadeFor | None:
    """The given size, else that of the prototxt's image input; None where it declares no more than a placeholder.

    Raises:
        ExportError: the net takes one other size only.
    """
    rule = plan.size_rule
    if given is not None:
        if given.resize and rule.fixed not in (None, given.size):
            sizes = ("x".join(map(str, size)) for size in (rule.fixed, given.size))
            raise ExportError(
                "the net takes {} images only (height x width), not {}: leave out the size".format(*sizes)
            )
        return given
    if rule.fixed is not None:
        return MadeFor(size=rule.fixed, source="prototxt", resize=True)
    size = plan.padded_to or (plan.image.shape[2], plan.image.shape[3])
    if min(size) < _MIN_SIDE:
        return None
    takes_any_size = rule.multiple == 1 or rule.offset != 0 or plan.padded_to is not None
    return MadeFor(size=size, source="prototxt", resize=not takes_any_size)
