"""Records are written whole or not at all, and nothing that was recorded is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from filelock import Timeout

from repro.errors import ReproError
from repro.files import write_whole
from repro.store import Store


def commit(store: Store, digest: str = "ab12", text: str = "weights") -> None:
    source = store.partial(digest) / "made"
    source.write_text(text)
    store.commit("train", digest, "train vgg:A", {"seed": 0}, {"loss": 1.5}, {"bin": source}, {"python": "3"}, 2.0)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    """Spec, numbers, files with checksums, seconds: all of it."""
    store = Store(tmp_path)
    commit(store)

    record = store.read("train", "ab12")
    assert record is not None
    assert (record.name, record.spec, record.numbers, record.seconds) == (
        "train vgg:A",
        {"seed": 0},
        {"loss": 1.5},
        2.0,
    )
    assert store.file(record, "bin").read_text() == "weights"
    assert store.sound(record) == []


def test_a_file_that_changed_is_found_by_its_checksum(tmp_path):
    """`sound` names the file whose bytes are not those recorded."""
    store = Store(tmp_path)
    commit(store)
    record = store.read("train", "ab12")
    store.file(record, "bin").write_text("other")

    assert store.sound(record) == ["bin"]


def test_a_damaged_record_is_set_aside_and_not_lost(tmp_path):
    """A record that is no JSON counts as absent; its bytes stay beside it."""
    store = Store(tmp_path)
    commit(store)
    path = tmp_path / "records" / "train" / "ab" / "ab12.json"
    path.write_text(path.read_text()[:50])

    assert store.read("train", "ab12") is None
    assert not store.has("train", "ab12")
    assert path.with_suffix(".damaged").is_file()


def test_nothing_is_written_when_the_disk_fails(tmp_path, monkeypatch):
    """With no room for the record, the old one stays and no temporary file is left."""
    target = tmp_path / "record.json"
    write_whole(target, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_later_version_of_the_store_is_refused(tmp_path):
    """The message names both versions and says what to do."""
    (tmp_path / "VERSION").write_text("9\n")

    with pytest.raises(ReproError, match="the store has version 9, this release reads 1; choose another with --store"):
        Store(tmp_path)


def test_a_marker_that_is_no_text_is_refused_too(tmp_path):
    """Bytes that are no number are told as a version, not by a traceback."""
    (tmp_path / "VERSION").write_bytes(b"\xff\xfe")
    with pytest.raises(ReproError, match="choose another with --store"):
        Store(tmp_path)


def _hold(root: Path, held: multiprocessing.Event, end: multiprocessing.Event) -> None:
    with Store(root).lock("ab12"):
        held.set()
        end.wait(30)


def test_a_lock_keeps_others_out_until_its_process_dies(tmp_path):
    """Two runs never do the same job; a killed run leaves no lock behind."""
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held, end))
    process.start()
    assert held.wait(30)

    with pytest.raises(Timeout):
        Store(tmp_path).lock("ab12").acquire(timeout=0)
    process.kill()
    process.join()
    with Store(tmp_path).lock("ab12").acquire(timeout=5):
        pass


def test_a_record_holds_its_version(tmp_path):
    """Anything on disk says which format it has."""
    commit(Store(tmp_path))

    data = json.loads((tmp_path / "records" / "train" / "ab" / "ab12.json").read_text())
    assert data["version"] == 1
