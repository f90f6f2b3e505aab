"""A server of bundles: the Open Inference Protocol over HTTP and gRPC, `/segment` for curl, a page, metrics.

`server.run_server` is `atrous serve`. From the outside in:

* `app`: the HTTP routes; `grpc_server`: the same calls by gRPC; `gate`: token, origin, limits and the access log.
* `protocol`: requests and answers of the protocol, from and to bytes; `jobs`: what one request wants.
* `engine`: a bounded queue before one pipeline for all models (`runtime.pipeline`), which shares the cores.
* `models`: the loaded bundles. `metrics`: Prometheus.
* `server`, `workers`, `process`, `http_server`: sockets, processes, signals.

A request never names a file, and no byte of a request is written to a disk.
"""

from __future__ import annotations

from .settings import ServeSettings

__all__ = ["ServeSettings"]
