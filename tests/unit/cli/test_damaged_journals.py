"""Damaged journals, and those of a newer version: every command says what it found, and deletes nothing."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from orphaned import SERVER, FakeServer, FakeSink, backdate, now_ms, orphan, running

from mlflow_sysmetrics.cli import main, waiting_points
from mlflow_sysmetrics.cli.findings import Mark
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery
from mlflow_sysmetrics.settings import Settings

UNKNOWN_RUN = "1 line cannot be read, and the run of 3 points is not known"
NEWER = "install mlflow-sysmetrics 1.4 or newer to deliver it"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> FakeSink:
    """The sink of every server, whose runs have ended."""
    found = FakeSink(runs=["run-1", "run-2"], ended=True)
    delivery = partial(OrphanDelivery, open_sink=lambda _: found, wait_seconds=0.0)
    for name in ("sync", "reap"):
        module = import_module(f"mlflow_sysmetrics.cli.{name}")
        monkeypatch.setattr(module, "OrphanDelivery", delivery)
    server = FakeServer({"run-1": running("run-1", last_sign=now_ms() - 305_000)})
    monkeypatch.setattr("mlflow_sysmetrics.cli.dead_runs.TrackingServer", lambda _, **__: server)
    return found


def run(command: str, directory: Path, *arguments: str) -> Result:
    server = () if command == "status" else ("--tracking-uri", SERVER)
    return CliRunner().invoke(main, [command, "--dir", str(directory), *server, *arguments])


def replace_line(path: Path, number: int, line: bytes) -> Path:
    """Replaces a line of a journal: 0 is its header, 1 its run."""
    texts = path.read_bytes().splitlines(keepends=True)
    texts[number] = line
    path.write_bytes(b"".join(texts))
    backdate(path, 300)
    return path


def nameless(directory: Path) -> Path:
    """Leaves a journal whose run cannot be read."""
    return replace_line(orphan(directory, "run-1", 3), 1, b"\0" * 100 + b"\n")


def newer(directory: Path) -> Path:
    """Leaves a journal of a newer version."""
    return replace_line(orphan(directory, "run-2", 3), 0, b'{"journal":9,"needs":"1.4"}\n')


def test_status_says_what_is_damaged(tmp_path: Path) -> None:
    path = nameless(tmp_path)
    done = run("status", tmp_path)
    assert done.exit_code == 0
    assert f"Damaged: {path}: {UNKNOWN_RUN}; the rest can be sent.\n" in done.stderr
    (journal,) = json.loads(run("status", tmp_path, "--json").stdout)["journals"]
    assert (journal["damaged_lines"], journal["points_of_unknown_runs"]) == (1, 3)


def test_sync_sets_a_damaged_journal_aside_and_fails_once(tmp_path: Path, sink: FakeSink) -> None:
    path = nameless(tmp_path)
    done = run("sync", tmp_path)
    aside = path.with_suffix(".damaged")
    place = f"set aside as {aside}, and deleted after 30 days"
    assert (done.exit_code, done.stdout) == (1, "Nothing was sent.\n")
    assert done.stderr == f"Error: {path} is damaged: {UNKNOWN_RUN}; {place}\n"
    assert (list(tmp_path.iterdir()), sink.taken) == ([aside], [])
    again = run("sync", tmp_path)
    date = time.strftime("%Y-%m-%d", time.localtime(aside.stat().st_mtime + 30 * 86400))
    assert (again.exit_code, again.stderr) == (
        0,
        f"Set aside: {aside}: {UNKNOWN_RUN}; deleted after {date}.\n",
    )


def test_sync_sends_the_rest_of_a_damaged_journal(tmp_path: Path, sink: FakeSink) -> None:
    path = replace_line(orphan(tmp_path, "run-1", 3), 2, b"x\n")
    done = run("sync", tmp_path, "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["points_sent"], len(sink.taken)) == (1, 2, 2)
    (fault,) = document["journals"][0]["faults"]
    assert fault.startswith(f"{path} is damaged: 1 line cannot be read; set aside as ")


def test_sync_deletes_what_was_set_aside_a_month_ago(tmp_path: Path, sink: FakeSink) -> None:
    path = nameless(tmp_path)
    run("sync", tmp_path)
    aside = path.with_suffix(".damaged")
    os.utime(aside, (time.time() - 31 * 86400,) * 2)
    of_another_host = tmp_path / "node-1-0123abcd.damaged"
    of_another_host.write_bytes(aside.read_bytes())
    os.utime(of_another_host, (0, 0))
    assert "Set aside" in run("sync", tmp_path, "--dry-run").stderr
    assert run("sync", tmp_path).stderr == ""
    assert list(tmp_path.iterdir()) == [of_another_host]
    run("sync", tmp_path, "--any-host")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--json",)])
def test_sync_leaves_a_newer_format_alone_and_fails(
    arguments: tuple[str, ...], tmp_path: Path, sink: FakeSink
) -> None:
    path = newer(tmp_path)
    orphan(tmp_path, "run-1", 3)
    before = path.read_bytes()
    done = run("sync", tmp_path, *arguments)
    assert done.exit_code == 1
    assert f"Error: {path}: it has the newer journal format 9: {NEWER}\n" in done.stderr
    assert path.read_bytes() == before
    assert len(sink.taken) == (0 if "--dry-run" in arguments else 3)


def test_status_names_the_version_for_a_newer_format(tmp_path: Path) -> None:
    newer(tmp_path)
    done = run("status", tmp_path)
    assert done.exit_code == 1
    assert NEWER in done.stderr
    (journal,) = json.loads(run("status", tmp_path, "--json").stdout)["journals"]
    assert journal["fault"].endswith(NEWER)


@pytest.mark.parametrize("arguments", [(), ("--apply",)])
def test_reap_leaves_a_newer_format_alone_and_fails(
    arguments: tuple[str, ...], tmp_path: Path, sink: FakeSink
) -> None:
    path = newer(tmp_path)
    before = path.read_bytes()
    done = run("reap", tmp_path, *arguments)
    assert done.exit_code == 1
    assert NEWER in done.stderr
    assert path.read_bytes() == before


def test_reap_delivers_a_damaged_journal_ends_its_run_and_sets_it_aside(
    tmp_path: Path, sink: FakeSink
) -> None:
    path = replace_line(orphan(tmp_path, "run-1", 3), 3, b"x\n")
    assert "Damaged: " in run("reap", tmp_path).stderr
    assert path.exists()
    done = run("reap", tmp_path, "--apply")
    assert "1 run set to KILLED." in done.stdout
    assert "Set aside: " in done.stderr
    assert len(sink.taken) == 2
    assert list(tmp_path.iterdir()) == [path.with_suffix(".damaged")]


def test_doctor_says_what_is_damaged_newer_and_set_aside(tmp_path: Path, sink: FakeSink) -> None:
    nameless(tmp_path)
    run("sync", tmp_path)
    nameless(tmp_path)
    newer(tmp_path)
    found = [
        one for one in waiting_points.findings(Settings(spool_dir=str(tmp_path))) if one.name == "journals"
    ]
    assert {one.mark for one in found} == {Mark.NOTE}
    assert [
        next(word for word in ("newer", "Damaged", "Set aside") if word in one.text) for one in found
    ] == [
        "newer",
        "Damaged",
        "Set aside",
    ]


def test_another_users_journal_does_not_control_the_terminal(tmp_path: Path) -> None:
    orphan(tmp_path, "run\x1b[2J", 3, uri="http://x/\x07")
    done = run("status", tmp_path)
    assert "run\\x1b[2J" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.output)
