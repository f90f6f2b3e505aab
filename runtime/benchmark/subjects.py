"""What is measured: a bundle on a backend in a precision, opened from words such as "onnxruntime:fp16"."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...bundle.folder import Bundle
from ...bundle.manifest import MANIFEST_NAME
from ...errors import InputError
from ..backends import BACKENDS, open_backend
from ..segmenter import Segmenter, load

REFERENCE = "onnxruntime:fp32"


@dataclass(frozen=True)
class SubjectSpec:
    """A backend, a precision and a device, with options of the backend.

    Attributes:
        backend: one of `BACKENDS`.
        precision: "fp32", or one of the bundle's variants.
        device: "cpu" or "cuda"; None for the backend's usual one.
        options: the backend's own, by name.
    """

    backend: str
    precision: str = "fp32"
    device: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is written: "onnxruntime:fp16@cuda"."""
        device = f"@{self.device}" if self.device not in (None, "cpu") else ""
        options = "".join(f",{key}={value}" for key, value in self.options.items())
        return f"{self.backend}:{self.precision}{device}{options}"


def parse_subject(text: str) -> SubjectSpec:
    """Read BACKEND[:PRECISION][@DEVICE][,OPTION=VALUE...].

    Raises:
        InputError: if it is not of that form, or there is no such backend.
    """
    head, *pairs = text.split(",")
    head, _, device = head.partition("@")
    backend, _, precision = head.partition(":")
    if backend not in BACKENDS:
        raise InputError(f'"{text}": there is no backend "{backend}"; there are {", ".join(BACKENDS)}')
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(f'"{text}": "{pair}" is not OPTION=VALUE')
        options[key] = value
    return SubjectSpec(backend, precision or "fp32", device or None, options)


def open_subject(
    spec: SubjectSpec,
    bundle: Bundle,
    *,
    threads: int | None,
    crf: Literal["auto"] | bool = "auto",
    crf_shortcuts: Mapping[str, Any] | None = None,
) -> Segmenter:
    """Load a bundle as a subject says; raises what `runtime.load` raises."""
    backend = open_backend(
        spec.backend, bundle, device=spec.device, threads=threads, precision=spec.precision, options=dict(spec.options)
    )
    return load(bundle.path, backend, threads=threads, crf=crf, crf_shortcuts=crf_shortcuts)


def hash_manifest(bundle: Bundle) -> str:
    """The manifest's sha256; it lists the digests of all files."""
    return hashlib.sha256((bundle.path / MANIFEST_NAME).read_bytes()).hexdigest()
