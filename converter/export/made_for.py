"""The image size a net was made for, and whether images are resized to it by default.

Some nets label an image at its own size: DeepLab pads it to 8k + 1 (or to the crop of its data layer), FCN takes any
size and crops the scores. The size in their prototxt is an example, or a minimum. The others (encoders with decoders,
nets of one fixed size) were trained and published at one size, which is the prototxt's.
"""

from __future__ import annotations

from ...bundle.manifest import MadeFor
from .deploy import Deployment

_MIN_SIDE = 32  # smaller declared sizes are placeholders, such as 1 x 1


def find_made_for(plan: Deployment) -> MadeFor | None:
    """The size of the prototxt's image input; None where it declares no more than a placeholder."""
    rule = plan.size_rule
    if rule.fixed is not None:
        return MadeFor(size=rule.fixed, source="prototxt", resize=True)
    size = plan.padded_to or (plan.image.shape[2], plan.image.shape[3])
    if min(size) < _MIN_SIDE:
        return None
    takes_any_size = rule.multiple == 1 or rule.offset != 0 or plan.padded_to is not None
    return MadeFor(size=size, source="prototxt", resize=not takes_any_size)
