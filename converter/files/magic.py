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
    (b"\x89PNG", "is a PNG image: give the caffemodel"),
    (b"\xff\xd8\xff", "is a JPEG image: give the caffemodel"),
    (b"\x93NUMPY", "is a NumPy array: give the caffemodel"),
    (b"MATLAB", "is a MATLAB file: give the caffemodel"),
)
_TEXT = re.compile(rb"[\s\xef\xbb\xbf]*(#|(name|layers?|input(_dim|_shape)?|force_backward|state)\s*[:{])")
_OF_MEAN = ", not a mean image: give its mean pixel, as in --mean 104,117,123, or a .binaryproto or .npy file"
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
            return re.split(r" \(|:", text)[0] + _OF_MEAN if mean else text
    if mean and re.fullmatch(rb"[\s\d.,;eE+\-\[\]]+", start):
        return f"is text{_OF_MEAN}"
    if _TEXT.match(start) and b"\0" not in start:
        return f"is text: a prototxt? Give {'the mean image (.binaryproto)' if mean else 'the binary weights'} here"
    if start[0] == _SOLVER_STATE_OR_BLOB and not mean:
        return "is a solver state or a mean image, not weights: give the .caffemodel"
    return None
