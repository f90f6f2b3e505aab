"""A bundle on disk: opened, checked, its files read.

A bundle is untrusted input. Sizes of all listed files are checked when it is opened; a file's digest is checked on
the very bytes that are handed out, so nothing can change between the check and the use. Files the manifest does not
list are never read. Listed names stay inside the folder, links included.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BundleError
from .files import hash_stream, open_regular
from .manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Deploy, GraphFacts, Manifest, Preprocessing, parse_manifest

_log = logging.getLogger(__name__)
_REMEDY = "copy the bundle again, or convert the net again"
_MAX_READ_BYTES = 2 << 30
"""Largest file that is read into memory; protobuf has no larger messages, so ONNX files have at most this."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder.
        manifest: its checked manifest.
        stamp: identifies the manifest's file as it was read.
    """

    path: Path
    manifest: Manifest
    stamp: tuple[int, ...] = field(default=(), repr=False)

    @property
    def deploy(self) -> Deploy:
        """The deployment of the network.

        Raises:
            BundleError: if the bundle holds no deployable network.
        """
        if self.manifest.deploy is None:
            raise self._not_deployable()
        return self.manifest.deploy

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of an image.

        Raises:
            BundleError: if the bundle holds no deployable network.
        """
        if self.manifest.preprocessing is None:
            raise self._not_deployable()
        return self.manifest.preprocessing

    def deploy_file(self, precision: str = "fp32") -> str:
        """The name of the graph that ships, in a precision: "fp32" or one of the manifest's variants.

        Raises:
            BundleError: if there is no deployable network, or none in that precision.
        """
        if precision == "fp32":
            return self.deploy.file if self.manifest.run is None else self.manifest.run.file
        for variant in self.manifest.variants.values():
            if variant.precision == precision:
                return variant.file
        present = ", ".join(("fp32", *self.manifest.variants))
        raise BundleError(
            f"has no {precision} network (it has {present}): make it with "
            f"`atrous precision {self.path} --to {precision}`",
            path=self.path,
        )

    def graph_facts(self, precision: str = "fp32") -> GraphFacts:
        """The facts about the graph that ships in a precision.

        Raises:
            BundleError: as `deploy_file`, and if the bundle was written without them.
        """
        file = self.deploy_file(precision)
        if file not in self.manifest.graphs:
            raise BundleError(f"has no facts about {file} in its manifest: convert the net again", path=self.path)
        return self.manifest.graphs[file]

    def _not_deployable(self) -> BundleError:
        if self.manifest.run is not None:
            return BundleError(
                f"holds no network that labels RGB images (its task is {self.manifest.run.task}): use `atrous run` or "
                "runtime.load_runner",
                path=self.path,
            )
        reasons = " ".join(warning for warning in self.manifest.warnings if "deploy" in warning)
        return BundleError(
            "holds no network that takes images; use its model.onnx" + (f" ({reasons})" if reasons else ""),
            path=self.path,
        )

    def locate_file(self, name: str) -> Path:
        """The path of a listed file, its size checked but not its content.

        Raises:
            BundleError: if it is not listed, missing, of another size, or a link out of the bundle.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f'has no file "{name}": {_REMEDY}', path=self.path)
        path = self.path / name
        try:
            resolved = path.resolve(strict=True)
            found_bytes = resolved.stat().st_size
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
            raise BundleError(f"is listed in the manifest but cannot be opened: {_REMEDY}", path=path) from error
        if not resolved.is_relative_to(self.path.resolve()):
            raise BundleError("is a link that leaves the bundle; put the file itself there", path=path)
        if not resolved.is_file():
            raise BundleError(f"is not a regular file: {_REMEDY}", path=path)
        if found_bytes != entry.bytes:
            raise BundleError(f"has {found_bytes} bytes, the manifest says {entry.bytes}: {_REMEDY}", path=path)
        return path

    def read_file(self, name: str) -> bytes:
        """The content of a listed file, its digest checked.

        Raises:
            BundleError: as `locate_file`, and if it is larger than 2 GiB or the sha256 differs from the manifest's.
        """
        path = self.locate_file(name)
        entry = self.manifest.files[name]
        if entry.bytes > _MAX_READ_BYTES:
            raise BundleError(f"has {entry.bytes} bytes, more than an ONNX file can have: {_REMEDY}", path=path)
        try:
            with open_regular(path) as file:
                content = file.read(entry.bytes + 1)
        except OSError as error:
            raise BundleError(f"cannot be read: {error.strerror}", path=path) from error
        self._compare_digest(name, hashlib.sha256(content).hexdigest())
        return content

    def verify_files(self, names: Iterable[str] | None = None) -> None:
        """Check size and digest of listed files, of all of them by default.

        Raises:
            BundleError: for the first file that differs from the manifest.
        """
        for name in self.manifest.files if names is None else names:
            try:
                with open_regular(self.locate_file(name)) as file:
                    digest = hash_stream(file)
            except OSError as error:
                raise BundleError(f"cannot be read: {error.strerror}", path=self.path / name) from error
            self._compare_digest(name, digest)

    def was_replaced(self) -> bool:
        """Whether the bundle was written anew or removed since it was opened."""
        try:
            return _stamp(os.stat(self.path / MANIFEST_NAME)) != self.stamp
        except OSError:
            return True

    def _compare_digest(self, name: str, found: str) -> None:
        expected = self.manifest.files[name].sha256
        if found != expected:
            raise BundleError(
                f"was altered after the bundle was written (sha256 {found[:12]}..., the manifest says "
                f"{expected[:12]}...): {_REMEDY}",
                path=self.path / name,
            )


def read_bundle(path: str | Path) -> Bundle:
    """Open a bundle and check its manifest and the sizes of its files; one that is replaced meanwhile is read again.

    Args:
        path: the bundle's folder.

    Raises:
        BundleError: if the folder, the manifest or a listed file is missing, malformed or of another size.
    """
    folder = Path(path)
    while True:
        bundle = _open(folder)
        try:
            for name in bundle.manifest.files:
                bundle.locate_file(name)
            return bundle
        except BundleError:
            if not bundle.was_replaced():
                raise


def _open(folder: Path) -> Bundle:
    if not os.path.lexists(folder):
        raise BundleError("there is no such bundle: make one with `atrous convert`", path=folder)
    if not os.path.isdir(folder):  # unlike Path.is_dir, quiet where permission is missing
        raise BundleError("is not a folder that can be read; a bundle is a folder with a manifest.json", path=folder)
    path = folder / MANIFEST_NAME
    try:
        with open_regular(path) as file:
            stamp = _stamp(os.fstat(file.fileno()))
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        inside = min(folder.glob(f"*/{MANIFEST_NAME}"), default=None)
        hint = f": give {inside.parent}" if inside else ": make one with `atrous convert`"
        raise BundleError(f"holds no {MANIFEST_NAME}, so it is not a bundle{hint}", path=folder) from error
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", path=path) from error
    bundle = Bundle(folder, parse_manifest(text, path=path), stamp)
    _log.debug("opened %s: %s, task %s", folder, bundle.manifest.name, bundle.manifest.task)
    return bundle


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
