"""Getting a model's files from addresses or from the user, checked, into their folder (steps 2 to 4 of `fetching`)."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ... import __version__
from ...errors import ChangedFileError, ConverterError, DownloadError, FetchError, FolderError
from .archive import SIGNATURE, extract_member, find_member, open_archive
from .catalogue import Catalogue, OfficialModel, RemoteFile
from .download import Limits
from .fitting import FittedNet, fit_net, fit_published
from .mirrors import Fetched, NoAddressError, Progress, UnsuitableError, describe_wanted, fetch_file
from .part_file import require_space
from .quantities import hash_file
from .record import ModelFiles, ModelRecord, ServerFile, describe_model, write_record
from .store import ModelFolder, Origin

_ANY_CAFFEMODEL = "*.caffemodel"
_Accepted = TypeVar("_Accepted")


@dataclass(frozen=True)
class FetchOptions:
    """How to fetch.

    Attributes:
        again: fetch anew what is there already.
        accept_changed: take a file that is not the recorded one.
        source: a caffemodel or zip file of the user's, in place of the addresses.
        offline: do not ask the server about a model that is there already.
        limits: how long and how much.
        progress: told of bytes as they come.
    """

    again: bool = False
    accept_changed: bool = False
    source: Path | None = None
    offline: bool = False
    limits: Limits = field(default_factory=Limits)
    progress: Progress = lambda what, done, total: None


@dataclass(frozen=True)
class _Weights:
    """Weights that were accepted, under a temporary name, with what was found beside them."""

    path: Path
    fitted: FittedNet
    member: str | None = None
    prototxt: Path | None = None
    server: ServerFile | None = None


@dataclass(frozen=True)
class _Prototxt:
    """The prototxt to use, under a temporary name."""

    path: Path
    origin: Origin
    fitted: FittedNet
    server: ServerFile | None = None


class _AnotherFileError(UnsuitableError):
    """The file is whole, and not the recorded one."""


class Acquisition:
    """One model on its way into its folder."""

    def __init__(
        self,
        catalogue: Catalogue,
        model: OfficialModel,
        place: ModelFolder,
        record: ModelRecord | None,
        options: FetchOptions,
    ) -> None:
        self.catalogue, self.model, self.place, self.options = catalogue, model, place, options
        self.recorded = record.files.weights if record is not None else None
        self.notes = list(model.notes)
        self.saw_another_file = False

    def run(self) -> ModelRecord:
        """Do it, and return what was recorded; for what it raises see `fetch_model`."""
        source = self.options.source
        weights = self._download() if source is None else self._import(source)
        prototxt = self._choose_prototxt(weights)
        return self._finish(weights, prototxt)

    # step 2

    def _download(self) -> _Weights:
        remote = self.model.weights
        try:
            fetched = self._fetch(remote, self._accept)
        except NoAddressError as error:
            raise self._explain(error) from None
        found = fetched.accepted
        self.notes += [f"{url}: {reason}" for url, reason in fetched.failures]
        self.notes += fetched.received.notes
        server = _describe_server(fetched, found.member)
        return _Weights(found.path, found.fitted, found.member, found.prototxt, server)

    def _import(self, source: Path) -> _Weights:
        """The user's own file, by the same checks."""
        copy = self.place.temporary("caffemodel")
        try:
            with source.open("rb") as stream:
                is_archive = stream.read(len(SIGNATURE)) == SIGNATURE
            size = source.stat().st_size
        except OSError as error:
            raise FetchError(f"{source}: cannot be read ({error.strerror})") from error
        try:
            if is_archive:
                return self._unpack(source, self.model.weights.member or _ANY_CAFFEMODEL)
            require_space(self.place.path, size)
            self.options.progress(f"copying {source.name}", 0, size)
            shutil.copyfile(source, copy)
            return self._check(copy, hash_file(copy))
        except FolderError:
            raise
        except _AnotherFileError as error:
            raise ChangedFileError(f"{source}: {error}\n{self._advise_change(f'--from {source}')}") from None
        except (UnsuitableError, ConverterError) as error:
            raise FetchError(f"{source}: {str(error).replace(f'{source}: ', '')}") from None
        except OSError as error:
            raise FolderError(f"{copy}: cannot be written ({error.strerror})") from error

    def _accept(self, path: Path, digest: str) -> _Weights:
        member = self.model.weights.member
        return self._check(path, digest) if member is None else self._unpack(path, member)

    def _unpack(self, path: Path, member: str) -> _Weights:
        with open_archive(path) as archive:
            info = find_member(archive, member, path)
            target = self.place.temporary("caffemodel")

            def show(done: int, total: int | None) -> None:
                self.options.progress(f"unpacking {info.filename}", done, total)

            extract_member(archive, info, target, path=path, progress=show)
            prototxt = None
            if self.model.weights.prototxt_member is not None:
                with contextlib.suppress(FetchError):
                    beside = find_member(archive, self.model.weights.prototxt_member, path)
                    prototxt = self.place.temporary("prototxt")
                    extract_member(archive, beside, prototxt, path=path)
        return self._check(target, hash_file(target), info.filename, prototxt)

    def _check(self, path: Path, digest: str, member: str | None = None, prototxt: Path | None = None) -> _Weights:
        fitted = fit_net(self.model, path)
        then = self.recorded
        if then is not None and digest != then.sha256 and not self.options.accept_changed:
            self.saw_another_file = True
            raise _AnotherFileError(
                f"not the file of {then.date}: its sha256 is {digest[:16]}..., and was {then.sha256[:16]}..."
            )
        return _Weights(path, fitted, member, prototxt)

    def _explain(self, error: NoAddressError) -> FetchError:
        name = self.model.name
        what = f"{name}: no address gave {describe_wanted(self.model.weights)}"
        if self.saw_another_file:
            rows = "\n".join(f"  {url}: {reason}" for url, reason in error.failures)
            return ChangedFileError(f"{what} as it was before\n{rows}\n{self._advise_change('--again')}")
        advice = f"If you find the file by hand (begin at {self.catalogue.page}): atrous fetch {name} --from FILE"
        return DownloadError(what, error.failures, advice)

    def _advise_change(self, how: str) -> str:
        command = f"atrous fetch {self.model.name} {how} --accept-changed"
        return f"The files that are here are kept. If you trust the new one: {command}"

    # step 3

    def _choose_prototxt(self, weights: _Weights) -> _Prototxt:
        """The published prototxt where it can be had and takes the weights, else the one written for them."""
        if weights.prototxt is not None:
            try:
                fitted = fit_published(self.model, weights.prototxt, weights.path)
                origin: Origin = "imported" if weights.server is None else "downloaded"
                server = weights.server
                if server is not None:
                    server = server.model_copy(update={"member": self.model.weights.prototxt_member})
                return _Prototxt(weights.prototxt, origin, fitted, server)
            except ConverterError as error:
                self.notes.append(f"the archive's prototxt does not fit, and atrous wrote one: {error}")
        elif self.model.prototxt is not None and self.options.source is None:
            try:
                return self._fetch_prototxt(self.model.prototxt, weights)
            except NoAddressError as error:
                self.notes.append("no address gave a published prototxt that fits; atrous wrote one")
                self.notes += [f"{url}: {reason}" for url, reason in error.failures]
        path = self.place.temporary("prototxt")
        path.write_text(weights.fitted.text, encoding="utf-8")
        return _Prototxt(path, "written", weights.fitted)

    def _fetch_prototxt(self, remote: RemoteFile, weights: _Weights) -> _Prototxt:
        """The published prototxt; the host that gave the weights is asked first."""
        host = _host(weights.server.url) if weights.server is not None else ""
        nearest = tuple(sorted(remote.addresses, key=lambda address: _host(address.url) != host))
        fetched = self._fetch(
            remote.model_copy(update={"addresses": nearest}),
            lambda path, digest: fit_published(self.model, path, weights.path),
        )
        return _Prototxt(fetched.received.path, "downloaded", fetched.accepted, _describe_server(fetched, None))

    def _fetch(self, remote: RemoteFile, accept: Callable[[Path, str], _Accepted]) -> Fetched[_Accepted]:
        return fetch_file(remote, self.place.path, accept, limits=self.options.limits, progress=self.options.progress)

    # step 4

    def _finish(self, weights: _Weights, prototxt: _Prototxt) -> ModelRecord:
        source = self.options.source
        origin: Origin = "downloaded" if source is None else "imported"
        files = ModelFiles(
            prototxt=self.place.place(
                prototxt.path,
                "prototxt",
                prototxt.origin,
                server=prototxt.server,
                imported_from=source if prototxt.origin == "imported" else None,
            ),
            weights=self.place.place(weights.path, "caffemodel", origin, server=weights.server, imported_from=source),
        )
        record = ModelRecord(
            **describe_model(self.catalogue, self.model),
            variables=dict(prototxt.fitted.variables),
            files=files,
            notes=tuple(dict.fromkeys((*self.notes, *prototxt.fitted.warnings))),
            atrous=__version__,
        )
        write_record(self.place.path, record)
        self.place.forget_parts()
        return record


def _describe_server(fetched: Fetched[Any], member: str | None) -> ServerFile:
    received = fetched.received
    return ServerFile(
        url=received.url,
        final_url=received.final_url,
        etag=received.etag,
        last_modified=received.last_modified,
        size_bytes=received.size_bytes,
        sha256=fetched.sha256,
        member=member,
    )


def _host(url: str) -> str:
    return "/".join(url.split("/")[:3])
