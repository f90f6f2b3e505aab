"""Colours for classes that came without: PASCAL VOC's colour map, in which most published nets are drawn."""

from __future__ import annotations


def make_palette(count: int) -> list[tuple[int, int, int]]:
    """One (red, green, blue) of 0 to 255 for each of `count` classes, black for the first.

    The bits of the class number, three at a time from the lowest, become the bits of red, green and blue from the
    highest (`VOClabelcolormap` of the VOC 2012 development kit); distinct for up to 256 classes.
    """
    colors = []
    for label in range(count):
        red = green = blue = 0
        for step in range(8):
            bits = label >> (3 * step)
            red |= (bits & 1) << (7 - step)
            green |= (bits >> 1 & 1) << (7 - step)
            blue |= (bits >> 2 & 1) << (7 - step)
        colors.append((red, green, blue))
    return colors
