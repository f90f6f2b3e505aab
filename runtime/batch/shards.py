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
    """The jobs of a shard among all jobs, lazily; `listed` and `own` are complete after an iteration.

    `listed` is the sum of the whole list if the jobs are only a part of it. A lazy list that asks `takes` itself is
    passed with `are_own`.
    """

    def __init__(
        self, jobs: Iterable[ImageJob], shard: Shard, listed: ListSum | None = None, *, are_own: bool = False
    ) -> None:
        self.jobs, self.shard, self._whole, self._are_own = jobs, shard, listed, are_own
        self.listed, self.own = listed or ListSum(), ListSum()

    def count(self) -> int:
        """The number of the shard's own jobs, for jobs that can be iterated more than once."""
        return sum(1 for _ in self)

    def takes(self, identity: str) -> bool:
        """Count an image of the list; returns whether it belongs to the shard."""
        number = hash_identity(identity)
        if self._whole is None:
            self.listed.add(number)
        if number % self.shard.count != self.shard.index:
            return False
        self.own.add(number)
        return True

    def __iter__(self) -> Iterator[ImageJob]:
        """Yield the shard's own jobs, in the order of the list."""
        self.listed, self.own = self._whole or ListSum(), ListSum()
        for job in self.jobs:
            if self._are_own or self.takes(job.identity):
                yield job


def divide_jobs(jobs: Iterable[ImageJob], count: int) -> tuple[list[list[ImageJob]], ListSum]:
    """The jobs of each of `count` shards, and the sum of the whole list."""
    shards: list[list[ImageJob]] = [[] for _ in range(count)]
    listed = ListSum()
    for job in jobs:
        number = hash_identity(job.identity)
        listed.add(number)
        shards[number % count].append(job)
    return shards, listed
