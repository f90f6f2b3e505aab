"""Other kinds of files given as weights, recognized by their first bytes."""

from __future__ import annotations

import mmap
import re

HDF5 = b"\x89HDF\r\n\x1a\n"

_LFS = b"version https://git-lfs.github.com/"
_SIGNATURES = (
    (b"PK\x03\x04", "is a zip archive (perhaps of PyTorch weights): extract it, and give the caffemodel inside"),
    (b"\x1f\x8b", "is a gzip archive: extract it first"),
    (b"BZh", "is a bzip2 archive: extract it first"),
    (b"\xfd7zXZ\x00", "is an xz archive: extract it first"),
    (b"7z\xbc\xaf", "is a 7z archive: extract it first"),
    (b"Rar!", "is a rar archive: extract it first"),
    (b"\x89PNG", "is a PNG image"),
    (b"\xff\xd8\xff", "is a JPEG image"),
    (b"\x93NUMPY", "is a NumPy array"),
)
_TEXT = re.compile(rb"[\s\xef\xbb\xbf]*(#|(name|layers?|input(_dim|_shape)?|force_backward|state)\s*[:{])")
_TEXT_BYTES = frozenset(range(32, 127)) | frozenset(b"\t\r\n")
_SOLVER_STATE_OR_BLOB = 0x08
"""Tag of field 1 as a varint: SolverState.iter or BlobProto.num; a net starts with a string or a layer."""


def name_wrong_kind(data: bytes | mmap.mmap, *, mean: bool = False) -> str | None:
    """The kind of a file that is not weights, and the remedy; None if it may be weights.

    Args:
        data: the file.
        mean: a mean image is expected instead of weights.
    """
    start = bytes(data[:1024])
    if start.startswith(_LFS):
        size = re.search(rb"\nsize (\d{1,20})", start)
        of = f" to {int(size[1]):,} bytes" if size else ""
        return f'is a Git LFS pointer{of}, not the file itself: run "git lfs pull" in the repository it came from'
    if start.lstrip()[:1] == b"<":
        wanted = "a mean image" if mean else "weights"
        return f"is an HTML or XML page, not {wanted}: the download failed; fetch it again"
    for signature, text in _SIGNATURES:
        if start.startswith(signature):
            return text
    if _TEXT.match(start) and b"\0" not in start:
        return f"is text: a prototxt? Give {'the mean image (.binaryproto)' if mean else 'the binary weights'} here"
    if start[0] == _SOLVER_STATE_OR_BLOB and not mean:
        return "is a solver state or a mean image, not weights: give the .caffemodel"
    return None


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
