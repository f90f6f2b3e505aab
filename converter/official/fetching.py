"""`fetch_model`: a name of the catalogue -> a folder that `atrous convert` takes.

    NAME/NAME.caffemodel   the weights, checked against the net
    NAME/NAME.prototxt     the published one where it can be had and fits, else one written for these weights
    NAME/model.json        classes, mean, CRF, and where everything came from

Steps:
1. What is there already is held against its record, and kept.
2. Else the weights come from the first address that gives the right file, or from a file of the user's; they are
   unpacked, and a net is fitted to them. What was recorded before must come again.
3. The prototxt is found or written.
4. Both are moved into place, and the record is written last: a folder without one is never taken for a model.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import ChangedFileError, FolderError
from .acquisition import Acquisition, FetchOptions
from .catalogue import Catalogue, OfficialModel
from .part_file import lock_folder
from .record import ModelRecord, find_damage, read_record
from .server_check import ServerState, check_server
from .store import ModelFolder


@dataclass(frozen=True)
class FetchResult:
    """What came of it.

    Attributes:
        state: `fetched`, `imported` from a file, or `present` before.
        folder: where the model is.
        record: the content of its `model.json`.
        server: for a model that was there before, what its server says now.
    """

    state: Literal["fetched", "imported", "present"]
    folder: Path
    record: ModelRecord
    server: ServerState | None = None


def fetch_model(
    catalogue: Catalogue, model: OfficialModel, folder: Path, options: FetchOptions | None = None
) -> FetchResult:
    """Have a model in a folder.

    Args:
        catalogue: where the model is from.
        model: which one.
        folder: where it goes; made if need be.
        options: how.

    Raises:
        FolderError: the folder is another's, cannot be written, is in use, or has no room.
        ChangedFileError: a file, here or on the server, is not the recorded one.
        DownloadError: no address gave the file.
        FetchError: the user's file is not this model.
    """
    options = options or FetchOptions()
    place = ModelFolder(folder, model.name)
    place.require_own()
    with lock_folder(folder):
        try:
            record = read_record(folder)
            if record is not None and record.name != model.name:
                raise FolderError(f"{folder}: holds {record.name}; give another folder with --out")
            if record is not None and not options.again and options.source is None:
                return _check_present(folder, record, options)  # step 1
            with place.temporary_files():
                record = Acquisition(catalogue, model, place, record, options).run()
                return FetchResult("fetched" if options.source is None else "imported", folder, record)
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # goes only if it is empty, because nothing came of it


def _check_present(folder: Path, record: ModelRecord, options: FetchOptions) -> FetchResult:
    damage = find_damage(folder, record)
    if damage:
        raise ChangedFileError("\n".join((*damage, f"Fetch the model anew: atrous fetch {record.name} --again")))
    server = record.files.weights.server
    state = None
    if server is not None and not options.offline:
        state = check_server(server, timeout_s=options.limits.timeout_s)
    return FetchResult("present", folder, record, state)
