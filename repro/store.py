"""Records on disk: written whole or not at all, checksummed, locked job by job.

VERSION
records/<kind>/<ab>/<digest>.json      with its files beside it, named <digest>.<file>
partial/<digest>/                      a job's own folder: checkpoint, log, what it makes
locks/<digest>.lock    data/<set>/     mlflow.db    mlartifacts/
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import ReproError
from .files import write_whole
from .provenance import file_digest
from .schema import Record

VERSION = 1


class Store:
    """The records under one folder. Opening makes the folder; a later version's is refused."""

    def __init__(self, root: Path) -> None:
        self.root = root
        marker = root / "VERSION"
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_whole(marker, f"{VERSION}\n")
            found = marker.read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            say = f"the store cannot be opened: {error.strerror}; choose another with --store"
            raise ReproError(say, str(root)) from None
        if found != str(VERSION):
            say = f"the store has version {found}, this release reads {VERSION}; choose another with --store"
            raise ReproError(say, str(root))

    def _place(self, kind: str, digest: str) -> Path:
        return self.root / "records" / kind / digest[:2] / f"{digest}.json"

    def has(self, kind: str, digest: str) -> bool:
        """Whether a record is there; an evaluation's are of kind `scores`."""
        return self._place(kind, digest).is_file()

    def read(self, kind: str, digest: str) -> Record | None:
        """A record, or None where there is none. A damaged one is set aside, so that it is made again."""
        path = self._place(kind, digest)
        with suppress(ValueError, TypeError):
            try:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
            except FileNotFoundError:
                return None
            if record.version == VERSION and record.digest == digest:
                return record
        self.set_aside(path)
        return None

    def file(self, record: Record, name: str) -> Path:
        """Where a record's file lies."""
        return self._place(record.kind, record.digest).with_name(f"{record.digest}.{name}")

    def sound(self, record: Record) -> list[str]:
        """The names of a record's files that are gone or whose checksum is not the one recorded."""
        paths = ((name, self.file(record, name)) for name in record.files)
        return [name for name, path in paths if not path.is_file() or file_digest(path) != record.files[name]]

    def set_aside(self, record: Record | Path) -> None:
        """Take a record, or what lies in its place, out of use, keeping it on disk as `.damaged`."""
        path = record if isinstance(record, Path) else self._place(record.kind, record.digest)
        with suppress(FileNotFoundError):  # another run may have been first
            os.replace(path, path.with_suffix(".damaged"))

    def all(self, kind: str) -> Iterator[Record]:
        """Every record of a kind."""
        found = sorted((self.root / "records" / kind).glob("*/*.json"))
        yield from filter(None, (self.read(kind, path.stem) for path in found))

    def lock(self, digest: str) -> FileLock:
        """The lock that a job's worker holds; released by the system when its process dies."""
        folder = self.root / "locks"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{digest}.lock")

    def partial(self, digest: str) -> Path:
        """A job's own folder, kept until its record is committed."""
        folder = self.root / "partial" / digest
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(
        self, kind: str, digest: str, name: str, spec: Mapping[str, Any], numbers: Mapping[str, Any],
        files: Mapping[str, Path], environment: Mapping[str, Any], seconds: float, failed: str | None = None,
    ) -> Record:  # fmt: skip
        """Move a job's files into place and write its record last, by rename: whole or not at all."""
        path = self._place(kind, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        sums = {}
        for key, source in files.items():
            with source.open("rb+") as stream:
                os.fsync(stream.fileno())
            sums[key] = file_digest(source)
            os.replace(source, path.with_name(f"{digest}.{key}"))
        told = dict(spec), dict(numbers), sums, dict(environment)
        record = Record(VERSION, digest, kind, name, *told, seconds, time.time(), failed)
        write_whole(path, json.dumps(asdict(record), sort_keys=True) + "\n")
        return record

    def clear(self, digest: str) -> None:
        """Remove a job's own folder after its records are committed."""
        shutil.rmtree(self.root / "partial" / digest, ignore_errors=True)
