"""Follow the images that workers draw: by the score lines that they append, not by a list of all files each second."""

import time
from itertools import chain
from pathlib import Path

from common.storage.json_lines import Tail
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents, launch, scores, store, traces

SECONDS_BETWEEN_LISTINGS = 60.0
"""Of the clients' folders. Files of this machine's processes are known by name; a listing finds those of processes that
were started by hand elsewhere."""


class Following:
    """The planned images of a method. What is there is looked up once; then only lines are read that are new."""

    def __init__(self, run: Run, method: str) -> None:
        self._workspace = run.workspace
        self._folders = {upload.client: run.image_folder(upload, method) for upload in run.uploads}
        self._tails: dict[Path, Tail] = {}
        self._ranks = range(launch.num_processes(run))
        self._files: dict[str, list[Path]] = {}
        self._listed = -SECONDS_BETWEEN_LISTINGS
        self._missing: dict[str, set[str]] = {}
        self._scored: dict[str, set[str]] = {}
        """Client -> images whose line was seen, but which are not written yet, or lost in a power cut."""
        self._count = 0
        for upload in run.uploads:
            folder, planned = self._folders[upload.client], store.planned_images(run, upload)
            missing = {image.file for image in planned if not image.path(folder).exists()}
            self._missing[upload.client], self._scored[upload.client] = missing, set()
            self._count += len(planned) - len(missing)

    def count(self) -> int:
        """Planned images that are there now."""
        self._list_files()
        for client, folder in self._folders.items():
            lines = [self._tails.setdefault(file, Tail(file)).read_new() for file in self._files[client]]
            new = {entry["file"] for entry in chain.from_iterable(lines)} & self._missing[client]
            self._missing[client] -= new
            self._scored[client] |= new
            written = {file for file in self._scored[client] if (folder / file).exists()}
            self._scored[client] -= written
            self._count += len(written)
        return self._count

    def loss_files(self) -> list[Path]:
        """Files, there or not, to which the losses of batches are appended."""
        return [traces.file_beside(file) for files in self._files.values() for file in files]

    def _list_files(self) -> None:
        if (now := time.monotonic()) - self._listed < SECONDS_BETWEEN_LISTINGS:
            return
        self._listed = now
        for client, folder in self._folders.items():
            named = [scores.file_of(folder, rank) for rank in self._ranks]
            self._files[client] = sorted({*named, *scores.files(folder)})

    def is_complete(self) -> bool:
        """Whether every image was there at the last count, but for those of clients whose images cannot be drawn."""
        lacking = [client for client in self._folders if self._missing[client] or self._scored[client]]
        return all(incidents.has_failed(self._workspace, client) for client in lacking)
