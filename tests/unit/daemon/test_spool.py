"""The spool directory: names, owners, and which process gets an orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.daemon.journal import open_file, spool
from mlflow_sysmetrics.daemon.journal import ownership as ownership_module
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.ownership import Ownership
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import Settings

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

OWNER = """
import os, sys
from pathlib import Path
from mlflow_sysmetrics.daemon.journal.journal import Journal
journal = Journal.create(Path(sys.argv[1]), 1_000_000)
run = journal.register("run", "http://x", 0)
journal.append(run, 0, 5, {"key": 1.0})
"""
WAITING = OWNER + "print(journal.path, flush=True); sys.stdin.read()"
FORKING = (
    OWNER
    + """
if (child := os.fork()) == 0:
    journal.forget_after_fork()
    assert journal.append(run, 1, 6, {"key": 2.0}) is None
    journal.acknowledge(run, 1)
    journal.clear()
    journal.close(delete=True)
    del journal  # what collects it must not unlock it either
    print(sys.argv[1], flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(child, 0)
"""
)
CLAIMING = """
import os, sys
from pathlib import Path
from mlflow_sysmetrics.daemon.journal.spool import claim
begin, go = os.pipe()
result, tell = os.pipe()
for _ in range(10):
    if os.fork() == 0:
        os.close(go)
        os.read(begin, 1)  # until all are there
        journal = claim(Path(sys.argv[1]))
        if journal is not None:
            journal.acknowledge(0, 1)
            journal.close(delete=True)
            os.write(tell, b"x")
        os._exit(0)
os.close(go)
for _ in range(10):
    assert os.wait()[1] == 0
os.close(tell)
print(len(os.read(result, 100)))
"""


READING = """
import os
import sys
from pathlib import Path
from mlflow_sysmetrics.daemon.journal.ownership import Ownership
ownership = Ownership.acquire(Path(sys.argv[1]))  # as the thread that reads an orphan has it
if (child := os.fork()) == 0:
    os._exit(ownership._descriptor is not None)
print(os.waitpid(child, 0)[1])
"""


@contextmanager
def running(program: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts a program that has a journal in a directory, and waits until it exists."""
    command = [sys.executable, "-W", "ignore", "-c", program, str(directory)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def orphan(directory: Path) -> Path:
    """Leaves the journal of a killed process, and returns its path."""
    with running(WAITING, directory) as process:
        process.kill()
        process.wait()
    (path,) = spool.journals(directory)
    return path


def test_the_default_directory_is_the_users_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("named by an environment variable on Linux alone")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    assert spool.spool_directory(Settings()) == Path("/home/me/state/mlflow-sysmetrics")


def test_a_directory_may_be_named(tmp_path: Path) -> None:
    assert spool.spool_directory(Settings(spool_dir=str(tmp_path))) == tmp_path


def test_a_relative_directory_is_made_absolute(tmp_path: Path) -> None:
    assert spool.spool_directory(Settings(spool_dir="spool")) == tmp_path / "spool"


def test_older_journals_are_found_if_journals_are_switched_off() -> None:
    assert spool.spool_directory(Settings(spool_dir="off")) == spool.spool_directory(Settings())


@needs_fork
def test_a_user_without_a_home_has_no_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_user(uid: int) -> None:
        raise KeyError(uid)

    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    with pytest.raises(JournalUnavailable, match="MLFLOW_SYSMETRICS_SPOOL_DIR"):
        spool.spool_directory(Settings())


def test_a_journal_is_named_after_host_and_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node-7/ä")
    journal = Journal.create(tmp_path, 1000)
    assert journal.path.name.startswith(f"node-7__-{os.getpid()}-")
    journal.close(delete=True)


def test_only_journals_of_this_host_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node")
    for name in ("node-1-0123abcd.jsonl", "node-1-0123abcd.lock", "node-1-0123abcd.new", "node-x.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "node-2-1-0123abcd.jsonl").touch()  # of the host "node-2"
    assert [path.name for path in spool.journals(tmp_path)] == ["node-1-0123abcd.jsonl"]
    assert len(spool.journals(tmp_path, any_host=True)) == 2


def test_no_directory_holds_no_journals(tmp_path: Path) -> None:
    assert spool.journals(tmp_path / "absent") == []


def test_a_journal_of_this_process_is_owned(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, 1000)
    assert spool.is_owned(journal.path)
    assert spool.claim(journal.path) is None
    journal.close(delete=True)


def test_checking_the_owner_leaves_an_orphan_claimable(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, 1000)
    journal.close(delete=False)
    assert not spool.is_owned(journal.path)
    claimed = spool.claim(journal.path)
    assert claimed is not None
    claimed.close(delete=True)


def test_checking_a_missing_journal_leaves_no_lock(tmp_path: Path) -> None:
    assert not spool.is_owned(tmp_path / "node-1-0123abcd.jsonl")
    assert spool.claim(tmp_path / "node-1-0123abcd.jsonl") is None
    assert list(tmp_path.iterdir()) == []


def test_claiming_without_a_directory_returns_none(tmp_path: Path) -> None:
    assert spool.claim(tmp_path / "absent" / "node-1-0123abcd.jsonl") is None


@pytest.mark.heavy
def test_a_journal_of_another_living_process_is_left_alone(tmp_path: Path) -> None:
    with running(WAITING, tmp_path):
        (path,) = spool.journals(tmp_path)
        assert spool.is_owned(path)
        assert spool.claim(path) is None


@pytest.mark.heavy
def test_a_journal_whose_owner_was_killed_is_claimed(tmp_path: Path) -> None:
    path = orphan(tmp_path)
    claimed = spool.claim(path)
    assert claimed is not None
    assert [run.run_id for run in claimed.runs] == ["run"]
    claimed.close(delete=True)


@needs_fork
@pytest.mark.heavy
def test_of_ten_concurrent_claims_one_succeeds(tmp_path: Path) -> None:
    path = orphan(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", CLAIMING, str(path)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    assert (found.stdout, found.stderr) == ("1\n", "")
    assert list(tmp_path.iterdir()) == []


@needs_fork
@pytest.mark.heavy
def test_a_forked_child_closes_the_lock_of_an_orphan_that_its_parent_reads(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", READING, str(tmp_path / "node-1-0123abcd.jsonl")]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    assert (found.stdout, found.stderr) == ("0\n", "")


def test_the_lock_works_with_a_filelock_without_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 3.13 an object that was refused printed a traceback when it was collected."""
    made: list[object] = []

    class OldLock:
        def __init__(self, *_: Any, **wanted: Any) -> None:
            made.append(self)
            if "fallback_to_soft" in wanted:
                raise TypeError

        def acquire(self, timeout: float) -> None:
            assert timeout == 0

        def release(self, *, force: bool) -> None:
            assert force

    monkeypatch.setattr("filelock.FileLock", OldLock)
    # As on Windows.
    monkeypatch.setattr(ownership_module, "acquire_lock", open_file._lock_of_library)
    ownership = Ownership.acquire(tmp_path / "node-1-0123abcd.jsonl")
    assert ownership is not None
    ownership.release()
    assert len(made) == 1


@needs_fork
@pytest.mark.heavy
def test_a_forked_child_does_not_own_its_parents_journal(tmp_path: Path) -> None:
    with running(FORKING, tmp_path) as process:
        (path,) = spool.journals(tmp_path)
        assert spool.is_owned(path)  # by the parent: the child has closed and collected its copy
        process.send_signal(signal.SIGKILL)
        process.wait()
        claimed = spool.claim(path)  # while the child lives
        assert claimed is not None
        assert [(run.run_id, run.acknowledged, run.appended) for run in claimed.runs] == [("run", 0, 1)]
        claimed.close(delete=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_other_files_are_not_claimed(tmp_path: Path) -> None:
    path = tmp_path / "node-1-0123abcd.jsonl"
    path.mkdir()  # stands in for anything that cannot be opened
    assert spool.claim(path) is None
