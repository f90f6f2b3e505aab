"""Arrays to `.npy` files, and from `.npy` and `.npz` files of others: never unpickled, measured before reading."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import open_regular
from ...errors import InputError

SUFFIXES = (".npy", ".npz")
MAX_BYTES = 1 << 33


def read_array(path: Path, key: str | None = None) -> npt.NDArray[Any]:
    """Read the array of a `.npy` file, or one of a `.npz` file.

    Args:
        path: the file.
        key: the array's name in a `.npz` file; None if it holds only one.

    Raises:
        InputError: the file is missing, damaged, pickled or larger than `MAX_BYTES`, or the name does not say which
            array to take.
    """
    try:
        with open_regular(path) as file:
            size, head = path.stat().st_size, file.read(6)
            if head != b"\x93NUMPY" and not head.startswith((b"PK", b"\x80")):
                raise InputError(f"{path} is not a sound .npy or .npz file: it begins with {head!r}")
            file.seek(0)
            if head.startswith(b"PK"):  # NumPy goes by the contents, not by the suffix
                with zipfile.ZipFile(file) as archive:
                    size = sum(entry.file_size for entry in archive.infolist())
                file.seek(0)
            if size > MAX_BYTES:
                raise InputError(f"{path}: {size} bytes are more than the limit of {MAX_BYTES}")
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = list(loaded.files)
            if key is None and len(names) != 1:
                raise InputError(f"{path} holds the arrays {', '.join(names) or 'none'}: say which with key (--key)")
            if key is not None and key not in names:
                raise InputError(f'{path} has no array "{key}": it holds {", ".join(names)}')
            array = loaded[names[0] if key is None else key]
            if not isinstance(array, np.ndarray):
                raise InputError(f"{path} is not a sound .npy or .npz file: it holds bytes that are not an array")
            return array
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # of damaged bytes, zipfile, zlib, tokenize and NumPy raise a dozen types
        if "pickle" in str(error):
            raise InputError(
                f"{path} holds a pickled object, which can run code and is not read: save its array with numpy.save, "
                "or several with numpy.savez"
            ) from None
        raise InputError(f"{path} is not a sound .npy or .npz file: {error}") from None


def encode_array(array: npt.NDArray[Any]) -> bytes:
    """An array as the bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
