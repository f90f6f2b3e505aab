"""Upload a bundle to the Hugging Face Hub in one commit, and download one, by `huggingface_hub`."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle.files import write_file
from ...bundle.folder import Bundle, read_bundle
from ...bundle.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, parse_manifest
from ...bundle.packing import select_packed
from ...bundle.writing import new_bundle
from ...dependencies import import_optional
from ...errors import AtrousError, BundleError, FetchError, InputError
from .card import CARD_NAME

PREFIX = "hf:"
_DOWNLOADS = ".hub"
_NAME = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubName:
    """A repository on the Hub: "ORG/NAME" and a branch, tag or commit."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Read "hf:ORG/NAME" or "hf:ORG/NAME@REVISION"; raises InputError."""
        found = _NAME.fullmatch(text)
        if not found:
            raise InputError(f'"{text}" is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION')
        return cls(found["name"], found["revision"])


def push_bundle(bundle: Bundle, to: HubName, card: str, *, private: bool = False) -> str:
    """Upload a bundle's files and its card in one commit; the repository is created if it is missing.

    Args:
        bundle: the bundle; its files must equal the manifest.
        to: the repository; the token is the one of `hf auth login` or of HF_TOKEN.
        card: the content of README.md.
        private: whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        BundleError: if a file is altered.
        FetchError: if the Hub refuses or cannot be reached.
        MissingDependencyError: if huggingface_hub is not installed.
    """
    hub = _load_library()
    bundle.verify_files()
    files = {name: bundle.locate_file(name) for name in bundle.manifest.files}
    files[MANIFEST_NAME] = bundle.path / MANIFEST_NAME
    operations = [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
    operations.append(hub.CommitOperationAdd(CARD_NAME, card.encode()))
    api = hub.HfApi()
    with _explained(hub, to):
        api.create_repo(to.name, private=private, exist_ok=True)
        message = f"Add {bundle.manifest.name}, converted by atrous {bundle.manifest.atrous_version}"
        commit = api.create_commit(to.name, operations, commit_message=message, revision=to.revision)
    return str(commit.commit_url)


def fetch_bundle(source: HubName, target: Path, *, everything: bool = False, replace: bool = False) -> Bundle:
    """Download a bundle: its manifest, then the files that label images, whose sizes and SHA-256 must match.

    Args:
        source: the repository and revision.
        target: the folder to write.
        everything: whether to download the torch model too. Its model.py is code, which `verify` and the torch backend
            run.
        replace: whether `target` may be a bundle, which is replaced.

    Raises:
        BundleError: if the repository holds no bundle, or a file differs from the manifest.
        FetchError: if the Hub refuses or cannot be reached.
        MissingDependencyError: if huggingface_hub is not installed.
        OutputError: if the target cannot be written, or is there and is not to be replaced.
    """
    hub = _load_library()
    with new_bundle(target, replace=replace) as place, _explained(hub, source):
        info = hub.HfApi().model_info(source.name, revision=source.revision, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings}
        if MANIFEST_NAME not in sizes:
            raise BundleError(f"is not a bundle: it has no {MANIFEST_NAME}", path=f"{PREFIX}{source.name}")
        if (sizes[MANIFEST_NAME] or 0) > MAX_MANIFEST_BYTES:
            raise BundleError(f"the manifest has {sizes[MANIFEST_NAME]} bytes", path=f"{PREFIX}{source.name}")

        def download(name: str) -> Path:
            # by commit, because the branch may move between two files
            return Path(hub.hf_hub_download(source.name, name, revision=info.sha, local_dir=place / _DOWNLOADS))

        manifest = parse_manifest(download(MANIFEST_NAME).read_bytes(), path=f"{PREFIX}{source.name}/{MANIFEST_NAME}")
        wanted = manifest if everything else select_packed(manifest, f"{PREFIX}{source.name}")
        for name, entry in wanted.files.items():
            if sizes.get(name) != entry.bytes:
                raise BundleError(
                    f"{name} has {sizes.get(name, 'no')} bytes there, the manifest says {entry.bytes}",
                    path=f"{PREFIX}{source.name}",
                )
        for name in wanted.files:
            download(name).replace(place / name)
        write_file(place / MANIFEST_NAME, wanted.to_json())
        shutil.rmtree(place / _DOWNLOADS)
        read_bundle(place).verify_files()
    return read_bundle(target)


def _load_library() -> Any:
    """huggingface_hub, with its errors, which it does not load by itself."""
    library = import_optional("huggingface_hub")
    importlib.import_module("huggingface_hub.errors")
    return library


@contextmanager
def _explained(hub: Any, repository: HubName) -> Iterator[None]:
    """Turn errors of the library and the network into a FetchError that names the repository."""
    name = f"{PREFIX}{repository.name}"
    try:
        yield
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError, hub.errors.GatedRepoError) as error:
        raise FetchError(
            f"{name}: there is no such repository or revision, or your token may not see it: `hf auth login`"
        ) from error
    # its HTTP error derives from the base of all errors of its HTTP client, which was requests, httpx, and httpx2
    except (*hub.errors.HfHubHTTPError.__bases__, hub.errors.OfflineModeIsEnabled, OSError, RuntimeError) as error:
        if isinstance(error, AtrousError):
            raise
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise FetchError(f"{name}: the Hub refuses or cannot be reached: {text[0]}") from error
