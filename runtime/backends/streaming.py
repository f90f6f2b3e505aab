"""Many runs behind each other: on a device the copies of one image pass beside the network of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .protocol import Array, Backend


def run_many(backend: Backend, many: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """Compute the outputs of many feeds, in order.

    A backend with a `run_many` of its own, such as tensorrt's, keeps several in flight; others run one by one. Feeds
    are taken as they are needed.

    Args:
        backend: an open backend.
        many: feeds, as `Backend.run` takes them.

    Raises:
        InputError: as `Backend.run`.
        BackendError: as `Backend.run`.
    """
    own = getattr(backend, "run_many", None)
    if own is not None:
        yield from own(many)
        return
    for feeds in many:
        yield backend.run(feeds)
