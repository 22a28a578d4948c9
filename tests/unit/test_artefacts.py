"""The artefact store: by digest, whole or not at all, checked when read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError, FatalError, RetryableError
from regate.daemon.artefacts import LocalStore


def test_what_was_put_is_got_by_name_and_by_digest(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    digest = store.put("rows-1.arrow", b"abc")
    assert digest == digest_bytes(b"abc")
    assert store.get("rows-1.arrow") == store.get(digest) == b"abc"
    assert store.put("rows-1.arrow", b"abc") == digest
    assert store.names("rows-") == ["rows-1.arrow"]


def test_a_name_may_move_and_the_old_bytes_stay(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = store.put("capsule-1", b"orphan")
    store.put("capsule-1", b"committed")
    assert store.get("capsule-1") == b"committed"
    assert store.get(first) == b"orphan"


def test_a_damaged_artefact_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"abc")
    (damaged,) = (path for path in (tmp_path / "objects").rglob("*") if path.is_file())
    damaged.write_bytes(b"abd")
    with pytest.raises(FatalError, match="damaged"):
        store.get("a")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 300, "sha256:zz"])
def test_a_name_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(FatalError):
        LocalStore(tmp_path / "store").put(name, b"x")
    assert list(tmp_path.rglob("evil")) == []


def test_a_missing_artefact_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no artefact gone"):
        LocalStore(tmp_path).get("gone")


def test_a_disk_that_refuses_is_retryable_and_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file where a folder should be")
    with pytest.raises(RetryableError):
        LocalStore(tmp_path).put("a", b"abc")
    assert list(tmp_path.rglob(".new-*")) == []


def test_many_writers_of_one_name_leave_it_whole(tmp_path: Path) -> None:
    store, payloads = LocalStore(tmp_path), [bytes([i]) * 50_000 for i in range(8)]
    threads = [threading.Thread(target=lambda data=data: store.put("same", data)) for data in payloads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("same") in payloads
