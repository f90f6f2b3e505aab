"""Shards of a run: part I of N of the images, chosen by each image's identity, so that N processes need no coordinator.

An image's identity is text that is the same on every machine: for an image of a folder its path in that folder, for
any other image its path or address as it was given. The first 8 bytes of the identity's SHA-256, as a big-endian
number modulo N, are its shard. So the shards of one list are disjoint and complete by construction, folders may be
mounted in different places, and paths in lists and arguments must be written the same on all machines.

Each shard also counts the images of the whole list and adds up their hashes; `merge` compares these sums, which finds
machines that saw different lists.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...errors import InputError
from .images import ImageJob

MAX_SHARDS = 1 << 20
_MODULUS = 1 << 64


@dataclass(frozen=True)
class Shard:
    """Shard `index` (from 0) of `count`; InputError if there is no such shard."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count <= MAX_SHARDS:
            raise InputError(
                f"there is no shard {self.index} of {self.count}: shards are numbered from 0 to the count - 1"
            )

    def __str__(self) -> str:
        """As in the names of files: 0-of-4."""
        return f"{self.index}-of-{self.count}"


def parse_shard(text: str) -> Shard:
    """The shard of "I/N"; InputError if the text has another form."""
    found = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text.strip())
    if found is None:
        raise InputError(f'"{text}" is not a shard: use I/N, such as 0/4 to 3/4')
    return Shard(int(found[1]), int(found[2]))


def hash_identity(identity: str) -> int:
    """A number of 64 bits, equal on all machines."""
    return int.from_bytes(hashlib.sha256(os.fsencode(identity)).digest()[:8], "big")


@dataclass
class ListSum:
    """Number of images, and the sum of their hashes modulo 2^64, which does not depend on their order."""

    images: int = 0
    digest: int = 0

    def add(self, number: int) -> None:
        """Count an image with this hash."""
        self.images, self.digest = self.images + 1, (self.digest + number) % _MODULUS

    def __add__(self, other: ListSum) -> ListSum:
        """The sum of both lists."""
        return ListSum(self.images + other.images, (self.digest + other.digest) % _MODULUS)


class Selection:
    """The jobs of a shard among all jobs, lazily; `listed` and `own` are complete after an iteration."""

    def __init__(self, jobs: Iterable[ImageJob], shard: Shard) -> None:
        self._jobs, self.shard = jobs, shard
        self.listed, self.own = ListSum(), ListSum()

    def count(self) -> int:
        """The number of the shard's own jobs, for jobs that can be iterated more than once."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[ImageJob]:
        """Yield the shard's own jobs, in the order of the list."""
        self.listed, self.own = ListSum(), ListSum()
        for job in self._jobs:
            number = hash_identity(job.identity)
            self.listed.add(number)
            if number % self.shard.count == self.shard.index:
                self.own.add(number)
                yield job
