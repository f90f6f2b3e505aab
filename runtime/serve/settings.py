"""The settings of a server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError

#: image formats that requests may have; others have larger decoders than a public address should offer
FORMATS = ("JPEG", "MPO", "PNG", "WEBP")


@dataclass(frozen=True)
class ServeSettings:
    """Addresses, limits and times of a server.

    Attributes:
        bundles: name of a model -> the folder of its bundle.
        load: further arguments of `runtime.load`, for all models.
        host: the address to listen on.
        port: HTTP port; 0 for a free one.
        grpc_port: gRPC port; 0 for a free one, None for no gRPC.
        public: whether `host` may be another address than this machine's own loopback.
        token: the bearer token that requests must have, or None.
        workers: number of processes; each loads all bundles and gets its share of the cores and of the memory.
        cores: cores for all processes together; None for all of the machine.
        queue: the largest number of requests at a time in each process; further ones get 503 and `Retry-After`.
        batch: the largest number of images of one size in a run of the network.
        batch_delay_ms: milliseconds that a run of the network waits for a full batch.
        timeout_s: seconds after which an unfinished request gets 503.
        max_body_bytes: of a request, after decompression too.
        max_held_bytes: of all requests that are held at a time; further ones get 503.
        max_pixels: of an image, checked before it is decoded, and of the size that a request asks the network for.
        header_timeout_s: seconds for the headers of a request.
        body_timeout_s: seconds for its body.
        max_connections: HTTP connections at a time; further ones get 503.
        drain_delay_s: seconds between SIGTERM and the end of listening, in which `ready` is already false.
        drain_s: seconds that requests in progress may take after that.
        sessions: images that the page keeps in each process.
        access_log: the file of the access log, "-" for stderr, None for none.
    """

    bundles: Mapping[str, str]
    load: Mapping[str, Any] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    public: bool = False
    token: str | None = None
    workers: int = 1
    cores: int | None = None
    queue: int = 32
    batch: int = 1
    batch_delay_ms: float = 0.0
    timeout_s: float = 30.0
    max_body_bytes: int = 64 << 20
    max_held_bytes: int = 512 << 20
    max_pixels: int = 1 << 24
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    max_connections: int = 1000
    drain_delay_s: float = 0.0
    drain_s: float = 60.0
    sessions: int = 8
    access_log: str | None = None

    @property
    def body_limits(self) -> dict[str, int]:
        """The limits of a request's body, as arguments of a job."""
        return {"max_pixels": self.max_pixels, "max_bytes": self.max_body_bytes}

    def __post_init__(self) -> None:
        if not self.public and not is_loopback(self.host):
            raise InputError(
                f"{self.host} is an address that other machines reach: pass --public if that is wanted, with a token "
                "or behind a proxy that asks for one"
            )
        if self.token is not None and len(self.token) < 16:
            raise InputError(
                "the token has fewer than 16 characters: take a longer one, such as `openssl rand -hex 16`"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
