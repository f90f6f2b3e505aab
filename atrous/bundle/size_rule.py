"""Input sizes that a network takes, and the padding of an image to one of them."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt, model_validator

from ..errors import InputError
from .section import Section, Sides


class SizeRule(Section):
    """The input sizes that the network takes.

    Either `fixed`, this (height, width) only, or the smallest `multiple * k + offset` per axis that is at least both
    `minimum` and the image. Padding is added below and to the right of the image and is 0 after mean subtraction.
    """

    minimum: Sides = (1, 1)
    multiple: PositiveInt = 1
    offset: NonNegativeInt = 0
    fixed: Sides | None = None

    @model_validator(mode="after")
    def _either_or(self) -> SizeRule:
        given = self.model_fields_set - {"fixed"}
        if given != (set() if self.fixed is not None else {"minimum", "multiple", "offset"}):
            raise ValueError('give either "fixed", or all of "minimum", "multiple" and "offset"')
        return self

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that an image of `height` x `width` pixels is padded to.

        Raises:
            InputError: if the network takes one size only, and it is another.
        """
        if self.fixed is not None:
            if (height, width) != self.fixed:
                raise InputError(
                    f"the image is {width}x{height} pixels, the network takes only {self.fixed[1]}x{self.fixed[0]}: "
                    "resize it to that, or leave out --native (size=None)"
                )
            return self.fixed
        return (
            _align(max(height, self.minimum[0]), self.multiple, self.offset),
            _align(max(width, self.minimum[1]), self.multiple, self.offset),
        )


def _align(side: int, multiple: int, offset: int) -> int:
    """The smallest multiple * k + offset, k >= 0, that is at least `side`."""
    return -(-max(side - offset, 0) // multiple) * multiple + offset
