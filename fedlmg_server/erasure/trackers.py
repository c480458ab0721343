"""Take one client's series out of the files of experiment trackers in a workspace: TensorBoard's and MLflow's."""

import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path

from common.storage.atomic import write_bytes
from fedlmg_server.erasure.words import Words

HEADER, FOOTER = 12, 4
"""Bytes around a record of TensorBoard: its length and a checksum before, a checksum behind."""


def erase_from_trackers(folder: Path, words: Words) -> None:
    """Other trackers' files stay as they are, and so does a database that cannot be written."""
    for path in folder.rglob("*tfevents*"):
        _drop_records(path, words)
    for path in folder.rglob("*.db"):
        with suppress(sqlite3.Error):
            _drop_rows(path, words)


def _drop_records(path: Path, words: Words) -> None:
    content, kept, start = path.read_bytes(), [], 0
    while start + HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        record = content[start : start + HEADER + length + FOOTER]
        if not words.are_in(record[HEADER:-FOOTER]):
            kept.append(record)
        start += len(record)
    if sum(map(len, kept)) < len(content):
        write_bytes(path, b"".join(kept))


def _drop_rows(path: Path, words: Words) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.create_function("tells", 1, lambda value: isinstance(value, str | bytes) and words.are_in(value))
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in database.execute("SELECT * FROM pragma_table_info(?)", (table,))]
            told = " OR ".join(f'tells("{column}")' for column in columns)
            database.execute(f'DELETE FROM "{table}" WHERE {told}')
        database.commit()
        database.execute("VACUUM")
