"""`mlflow-sysmetrics report` on real stores: a database, and a server that answers for many runs at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from programs import MLFLOW, Program, Store

from made_runs import TAGS, histories, starved
from mlflow_sysmetrics import LocalServer
from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.report import measured_runs

SECONDS = 1200


def logged(store: Store, count: int) -> list[str]:
    """Logs runs of twenty minutes with a GPU that waits, and returns their ids."""
    from mlflow.entities import Metric

    client = store.client
    began = time.time_ns() // 1_000_000 - SECONDS * 1000
    made = histories(starved, SECONDS / 60)
    first = min(points[0][0] for points in made.values())
    found = []
    for index in range(count):
        run = client.create_run("0", start_time=began, run_name=f"run {index}", tags=TAGS)
        points = [
            Metric(key, value, began + at - first, (at - first) // 1000)
            for key, series in made.items()
            for at, value in series
        ]
        client.log_batch(run.info.run_id, metrics=points[:1000])
        client.log_batch(run.info.run_id, metrics=points[1000:])
        client.set_terminated(run.info.run_id)
        found.append(run.info.run_id)
    return found


def report(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(main, ["report", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_run_and_an_experiment_are_read_from_a_database(store: Store, tmp_path: Path) -> None:
    (run_id,) = logged(store, 1)
    page, table = tmp_path / "page.html", tmp_path / "runs.parquet"
    one = report(run_id, "--tracking-uri", store.uri, "--html", str(page), "--parquet", str(table))
    all_of_them = report("--experiment", "Default", "--tracking-uri", store.uri, "--since", "1h")
    assert [verdict["name"] for verdict in one["runs"][0]["verdicts"]] == ["gpu-starved"]  # type: ignore[index]
    assert all_of_them["verdicts"] == {"gpu-starved": 1}
    assert "gpu-starved" in page.read_text(encoding="utf-8")
    assert table.read_bytes()[:4] == b"PAR1"


@pytest.mark.usefixtures("forked")
@pytest.mark.skipif(MLFLOW < (2, 10), reason="an older server has no call for many runs")
def test_histories_of_many_runs_take_one_request_per_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer(directory=tmp_path / "server") as server:
        logged(Store(server.url), 3)
        monkeypatch.setattr(measured_runs, "read_history", None)  # not needed
        found = report("--experiment", "Default", "--tracking-uri", server.url)
    assert found["verdicts"] == {"gpu-starved": 3}


SHORT = """
    from mlflow_sysmetrics.summary import live_run
    from mlflow_sysmetrics.summary.rules import Verdict

    live_run.SHORTEST_SECONDS = 0.1
    live_run.verdicts = lambda *_: (Verdict("input-bound", "A GPU waited."),)
    client = mlflow.MlflowClient()
    for description in (None, "what I wanted to try"):
        with mlflow.start_run(description=description) as run:
            time.sleep(0.3)
        print(run.info.run_id)
"""


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_runs_have_figures_verdict_description_and_a_page_when_they_end(
    program: Program, store: Store
) -> None:
    finished = program(
        store.uri,
        SHORT,
        MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.1",
        MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING="1",
        MLFLOW_SYSMETRICS_REPORT="artifact",
        MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="60",
    )
    assert finished.stderr.count("mlflow-sysmetrics") == 0
    first, second = (store.client.get_run(run_id) for run_id in finished.words)
    for run in (first, second):
        assert run.data.metrics["system/summary/measured_hours"] > 0
        assert run.data.tags["sys.verdict"] == "input-bound: A GPU waited."
        page = store.client.download_artifacts(run.info.run_id, "sysmetrics/report.html")
        assert run.info.run_id in Path(page).read_text(encoding="utf-8")
    assert "\n**input-bound**: A GPU waited.\n" in first.data.tags["mlflow.note.content"]
    assert second.data.tags["mlflow.note.content"] == "what I wanted to try"
