"""Whatever keeps points from being saved: the program goes on, and it is said once."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeClock
from mlflow_sysmetrics.cli import installed, waiting_points
from mlflow_sysmetrics.cli.findings import Mark
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.ownership import Ownership
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.settings import Settings

JOURNAL = "mlflow_sysmetrics.daemon.journal.journal"
POINT = Point("key", 1.0, 5)
ERRORS = [
    (MemoryError(), "there is not enough memory"),
    (ImportError("No module named 'filelock'"), "No module named 'filelock'"),
    (ValueError("embedded null byte"), "embedded null byte"),
    (NotImplementedError("flock is not supported"), "flock is not supported"),
    (AttributeError("no attribute 'FileLock'"), "no attribute 'FileLock'"),
    (OSError(errno.ENOLCK, "No locks available"), "No locks available"),
    (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "surrogates not allowed"),
    (KeyError(), "an unexpected error (KeyError)"),
]


class Process:
    """A process whose journal the test breaks."""

    def __init__(self, create: Callable[[], Journal], *, threaded: bool = False) -> None:
        self.clock = FakeClock()
        thread = JournalThread(self.clock, threaded=threaded, wait_seconds=30)
        self.journal = ProcessJournal(create, self.clock, thread=thread)
        self.run = ProcessRunJournal(self.journal, "run", "http://x", None)
        self.appended = 0

    def append(self) -> int | None:
        self.appended += 1
        return self.run.append(self.appended, [POINT])


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(("error", "said"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_whatever_fails_while_the_journal_is_made_is_said_once(
    error: Exception, said: str, threaded: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the lock, which is a library's on Windows; the same holds for all that is called to make it."""
    tries = 0

    def create() -> Journal:
        nonlocal tries
        tries += 1
        return Journal.create(tmp_path, 1_000_000)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mlflow_sysmetrics.daemon.journal.ownership.acquire_lock", raising(error))
        process = Process(create, threaded=threaded)
        for _ in range(3):
            assert process.append() is None
            process.journal.log_health()
        assert process.journal.failed is not None
        assert said in process.journal.failed
        assert len(warnings(caplog)) == 1
        assert said in warnings(caplog)[0]
        assert tries == 1  # tried again after a minute
    process.clock.move(60)
    assert process.append() is not None
    assert process.journal.failed is None


@pytest.mark.parametrize(
    "place",
    ["pathlib.Path.mkdir", "os.open", "socket.gethostname", "os.fstat", f"{JOURNAL}.Header"],
)
def test_memory_may_be_short_anywhere(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(lambda: Journal.create(tmp_path, 1_000_000))
    with monkeypatch.context() as patched:
        patched.setattr(place, raising(MemoryError()))
        assert process.append() is None
        assert process.journal.failed == "there is not enough memory"
    process.clock.move(60)
    assert process.append() is not None
    assert list(tmp_path.glob("*.jsonl")) == [process.journal.path]


def test_a_library_that_does_not_find_the_directory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    process = Process(lambda: Journal.create(spool_directory(Settings()), 1_000_000))
    assert process.append() is None
    assert "platformdirs" in str(process.journal.failed)


def test_a_journal_is_made_although_its_evidence_cannot_be_read(tmp_path: Path) -> None:
    clock = FakeClock()
    journal = ProcessJournal(lambda: Journal.create(tmp_path, 1_000_000), clock, raising(MemoryError()))
    assert ProcessRunJournal(journal, "run", "http://x", None).append(0, [POINT]) is not None
    assert journal.failed is None


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    "error", [MemoryError(), ValueError("no"), RuntimeError("a lock of somebody else's")]
)
def test_whatever_fails_later_is_said_until_points_are_saved_again(
    error: Exception,
    threaded: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    process = Process(lambda: Journal.create(tmp_path, 1_000_000), threaded=threaded)
    assert process.append() is not None
    with monkeypatch.context() as patched:
        patched.setattr(Ownership, "check", raising(error))
        for _ in range(3):
            assert process.append() is None
            process.journal.log_health()
        assert process.journal.failed is not None
    assert len(warnings(caplog)) == 1
    assert process.append() is not None
    assert process.journal.failed is None
    process.journal.log_health()
    assert "journalled again" in caplog.text


def test_a_full_journal_that_cannot_be_made_smaller_is_said(tmp_path: Path) -> None:
    process = Process(lambda: Journal.create(tmp_path, 5000))
    while process.append() is not None:
        pass
    assert process.journal.failed == "the journal is full (0.005 MB)"
    journal = process.journal._journal
    assert journal is not None
    journal.compact()
    assert process.append() is not None
    assert process.journal.failed is None


def test_a_compaction_without_memory_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.create(tmp_path, 5000)
    run = journal.register("run", "http://x", 0)
    while journal.append(run, journal.size, 0, {"key": 1.0}) is not None:
        pass
    before = journal.path.read_bytes()
    monkeypatch.setattr("mlflow_sysmetrics.daemon.journal.compaction.thin", raising(MemoryError()))
    with pytest.raises(MemoryError):
        journal.compact()
    assert journal.path.read_bytes() == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".lock"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_directory_in_which_others_may_replace_a_journal_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o777)
    process = Process(lambda: Journal.create(tmp_path, 1_000_000))
    for _ in range(3):
        process.append()
        process.journal.log_health()
    assert warnings(caplog) == [
        (
            f"mlflow-sysmetrics: Other users can replace journals: {tmp_path} has mode 0777; set "
            "MLFLOW_SYSMETRICS_SPOOL_DIR to a new directory below it, which will be of this user only."
        )
    ]


# What `doctor` says before a program runs


def directory_finding(directory: Path) -> tuple[Mark, str]:
    (found,) = (
        one for one in waiting_points.findings(Settings(spool_dir=str(directory))) if one.name == "directory"
    )
    return found.mark, found.text


def test_doctor_names_a_lock_library_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    mark, text = directory_finding(tmp_path)
    assert mark is Mark.WRONG
    assert text.startswith("filelock cannot be imported (")
    assert text.endswith("): points wait in memory only")


def test_doctor_names_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    assert directory_finding(tmp_path) == (
        Mark.WRONG,
        f"the disk of {tmp_path} is full: points wait in memory only",
    )


def test_doctor_names_a_library_below_its_floor() -> None:
    found = installed._dependencies(["filelock>=3.20.1", "click>=8.0", "pytest>=9999.1"])
    assert found.mark is Mark.WRONG
    assert found.text.startswith("pytest ")
    assert found.text.endswith(" is older than 9999.1")
    assert found.remedy == "pip install 'pytest>=9999.1'"
