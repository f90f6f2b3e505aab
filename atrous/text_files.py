"""Text files as users have them: UTF-8 with or without a byte order mark, or UTF-16 as Windows' programs write it."""

from __future__ import annotations

_TEXT_BYTES = frozenset(range(32, 127)) | frozenset(b"\t\r\n")


def decode_text(data: bytes) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        UnicodeDecodeError: neither UTF-8 nor UTF-16.
    """
    return data.decode(find_wide_codec(data) or "utf-8-sig")


def find_wide_codec(data: bytes) -> str | None:
    """The codec of UTF-16 text, with or without a mark, or of UTF-32 text with one, as Windows' programs write them.

    Args:
        data: the first bytes of the file.

    Returns:
        The codec, or None for other files.
    """
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    start = data[: min(len(data), 4096) & ~1]
    even, odd = start[::2], start[1::2]
    if len(even) < 4:
        return None
    for codec, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        plain = sum(not upper and lower in _TEXT_BYTES for upper, lower in zip(high, low, strict=True))
        if plain >= 0.75 * len(even):  # comments may be in any language
            return codec
    return None
