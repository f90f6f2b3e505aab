"""Images at web addresses: downloaded into memory, with limits of size and time."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...dependencies import import_optional
from ...errors import ImageError

MAX_BYTES = 1 << 28
TIMEOUT_S = 60.0


def is_address(name: str) -> bool:
    """Whether a name is an http or https address."""
    return name.lower().startswith(("http://", "https://"))


def download_image(address: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S) -> bytes:
    """Download the bytes of an image.

    Args:
        address: http or https.
        max_bytes: largest size.
        timeout_s: for everything, from the look-up of the name to the last byte.

    Raises:
        ImageError: if the server cannot be reached, answers with an error, or exceeds a limit.
        MissingDependencyError: if httpx is not installed.
    """
    httpx = import_optional("httpx")
    import anyio  # httpx needs it

    try:
        return bytes(anyio.run(partial(_receive, httpx, address, max_bytes, timeout_s)))
    except TimeoutError as error:
        raise ImageError(f"the server takes more than {timeout_s:.0f} s", path=address) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ImageError(f"cannot be downloaded: {error or type(error).__name__}", path=address) from error


async def _receive(httpx: Any, address: str, max_bytes: int, timeout_s: float) -> bytearray:
    import anyio

    content = bytearray()
    with anyio.fail_after(timeout_s):
        async with (
            httpx.AsyncClient(timeout=None, follow_redirects=True) as client,
            client.stream("GET", address) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ImageError(f"the server answers with HTTP status {response.status_code}", path=address)
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > max_bytes:
                    raise ImageError(f"has more than {max_bytes >> 20} MiB", path=address)
    return content
