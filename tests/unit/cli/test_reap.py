"""`reap` ends runs whose process died."""

from __future__ import annotations

import json
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from orphaned import SERVER, FakeServer, FakeSink, now_ms, orphan, running

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery
from mlflow_sysmetrics.cli.tracked_runs import TrackedRun


class World:
    """One server, shared by the search and the delivery."""

    def __init__(self, *runs: TrackedRun) -> None:
        self.server = FakeServer({run.run_id: run for run in runs})
        self.sink = FakeSink(runs=list(self.server.runs))
        self.sink.has_ended = lambda run_id: not self.server.runs[run_id].running  # type: ignore[method-assign]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(running("run-1", last_sign=now_ms() - 305_000))
    delivery = partial(OrphanDelivery, open_sink=lambda _: found.sink, wait_seconds=0.0)
    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.reap"), "OrphanDelivery", delivery)
    monkeypatch.setattr("mlflow_sysmetrics.cli.dead_runs.TrackingServer", lambda _, **__: found.server)
    return found


def reap(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["reap", "--dir", str(directory), "--tracking-uri", SERVER, *arguments])


def test_without_apply_nothing_changes(tmp_path: Path, world: World) -> None:
    path = orphan(tmp_path, "run-1", 3)
    before = path.read_bytes()
    done = reap(tmp_path)
    assert (done.exit_code, world.server.killed, world.sink.taken) == (0, {}, [])
    assert path.read_bytes() == before
    assert "Nothing was changed. Use --apply to deliver 3 points and set 1 run to KILLED." in done.stdout


def test_apply_delivers_the_journal_and_ends_the_run_at_its_last_point(tmp_path: Path, world: World) -> None:
    orphan(tmp_path, "run-1", 3)
    done = reap(tmp_path, "--apply")
    assert len(world.sink.taken) == 3
    last_sign = world.server.runs["run-1"].last_sign
    assert world.server.killed == {"run-1": (last_sign, "the process died without reporting a reason")}
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "1 run set to KILLED.")


def test_the_journal_of_a_reaped_run_is_deleted(tmp_path: Path, world: World) -> None:
    path = orphan(tmp_path, "run-1", 3)
    reap(tmp_path, "--apply")
    assert "run-1" in world.server.killed
    assert not path.exists()


def test_a_run_whose_points_cannot_be_delivered_is_not_ended(tmp_path: Path, world: World) -> None:
    world.sink.down = "Connection refused"
    path = orphan(tmp_path, "run-1", 3)
    done = reap(tmp_path, "--apply")
    assert (done.exit_code, world.server.killed) == (1, {})
    assert f"Error: {SERVER}: Connection refused; 3 points still in {path}" in done.stderr


def test_a_run_resumed_meanwhile_is_left_alone(tmp_path: Path, world: World) -> None:
    orphan(tmp_path, "run-1", 3)

    def resume(_: int) -> None:
        world.server.runs["run-1"] = running("run-1", last_sign=now_ms())

    world.sink.on_send = resume
    done = reap(tmp_path, "--apply")
    assert world.server.killed == {}
    assert "Left alone: run-1: another process has begun to feed it." in done.stderr


def test_an_experiment_needs_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.reap"), "tracking_uri_in_force", lambda: None)
    done = CliRunner().invoke(main, ["reap", "--dir", str(tmp_path), "--experiment", "Nope"])
    assert done.exit_code == 2
    assert "--experiment needs a server" in done.output


def test_an_invalid_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        import_module("mlflow_sysmetrics.cli.reap"), "tracking_uri_in_force", lambda: "htp://x"
    )
    done = CliRunner().invoke(main, ["reap", "--dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "MLFLOW_TRACKING_URI must be a tracking URI" in done.output


def test_json_has_what_was_done(tmp_path: Path, world: World) -> None:
    path = orphan(tmp_path, "run-1", 3)
    found = json.loads(reap(tmp_path, "--apply", "--json").stdout)
    (run,) = found["runs"]
    assert (found["applied"], run["run_id"], run["killed"], run["journals"]) == (
        True,
        "run-1",
        True,
        [str(path)],
    )
    assert run["reason"] == world.server.killed["run-1"][1]


@pytest.mark.usefixtures("world")
def test_without_dead_runs_it_says_so(tmp_path: Path) -> None:
    assert reap(tmp_path).stdout == "No run is RUNNING without a process that feeds it.\n"


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--older-than", "soon"),
            "--older-than must be a duration (90s, 10m, 2h, 1d, or plain seconds), got 'soon'",
        ),
        (("--older-than", "0m"), "must be above 0, got '0m'"),
        (("--experiment", "Nope"), "no experiment {'Nope'}"),
    ],
)
def test_an_invalid_argument_is_named(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = reap(tmp_path, *arguments)
    assert done.exit_code == 2
    assert message in done.output
