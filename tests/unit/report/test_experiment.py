"""Many runs as one table, and as files."""

from __future__ import annotations

import csv
import io
from json import dumps

import pytest

from made_runs import FakeServer, busy, fleet, histories
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer
from mlflow_sysmetrics.report import measured_runs
from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.experiment import documents, tabulate, to_csv, visible
from mlflow_sysmetrics.report.measured_runs import read_histories, read_runs

SUMMARY = {
    "system/summary/gpu_hours": 8.0,
    "system/summary/gpu_idle_percentage": 25.0,
    "system/summary/energy_watt_hours": 2000.0,
}


def test_the_run_with_the_most_idle_gpu_hours_is_first() -> None:
    server = fleet()
    table = tabulate(server, "ships", read_runs(server, ["1"], None))
    assert [(row.run.name, row.verdict) for row in table.rows] == [
        ("segmentation", "gpu-starved"),
        ("resnet", "healthy"),
        ("trees", "healthy"),
    ]
    assert table.rows[0].idle_gpu_hours == pytest.approx(1, rel=0.02)
    assert table.unmeasured == 1
    assert table.total(lambda row: row.figures.get("gpu_hours")) == pytest.approx(3, rel=0.01)
    assert dict(table.verdicts()) == {"healthy": 2, "gpu-starved": 1}


def test_runs_with_a_summary_cost_no_request() -> None:
    server = FakeServer()
    for index in range(50):
        server.add(
            f"{index:032}", "run", histories(busy, 1), summary=SUMMARY, **{"sys.verdict": "input-bound: so"}
        )
    table = tabulate(server, "ships", read_runs(server, ["1"], None))
    assert server.requests == ["search_runs"]
    assert {row.verdict for row in table.rows} == {"input-bound"}
    assert table.total(lambda row: row.idle_gpu_hours) == 100


def test_a_summary_without_a_verdict_has_none() -> None:
    server = FakeServer()
    server.add("1" * 32, "run", histories(busy, 1), summary=SUMMARY)
    (row,) = tabulate(server, "ships", read_runs(server, ["1"], None)).rows
    assert row.verdict == "-"


def test_nodes_and_gpus_are_counted() -> None:
    server = FakeServer()
    points = {
        f"system/{node}/gpu_{number}_utilization_percentage": [(1, 5.0)]
        for node in "012"
        for number in range(12)
    }
    server.add("1" * 32, "run", points, summary=SUMMARY)
    (row,) = tabulate(server, "ships", read_runs(server, ["1"], None)).rows
    assert (row.nodes, row.gpus) == (3, 36)


@pytest.mark.parametrize(
    ("by", "names"),
    [("user", ["grace", "ada"]), ("verdict", ["gpu-starved", "healthy"]), ("host", ["gpu-node-7"])],
)
def test_groups_are_sorted_by_idle_gpu_hours(by: str, names: list[str]) -> None:
    server = fleet()
    table = tabulate(server, "ships", read_runs(server, ["1"], None))
    assert [name for name, _ in table.groups(by)] == names


def test_the_fields_of_csv_json_and_parquet_are_the_same() -> None:
    server = fleet()
    rows = documents(tabulate(server, "ships", read_runs(server, ["1"], None)), Costs(price_per_gpu_hour=2))
    (first, *_) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert list(first) == list(rows[0])
    assert float(first["cost"]) == pytest.approx(4, rel=0.01)
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert to_csv([]) == ""


@pytest.mark.parametrize(
    "text",
    ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1", "\u202e=1", "\x00=1"],
)
def test_no_cell_is_a_formula(text: str) -> None:
    (cell,) = next(csv.reader(io.StringIO(to_csv([{"name": text}]).partition("\n")[2])))
    assert cell[0] in "'\\"
    assert cell.isprintable()


@pytest.mark.parametrize("text", ["plain", "3.5", "größer", "日本", "a=b", "e-3"])
def test_plain_cells_stay_as_they_are(text: str) -> None:
    assert to_csv([{"name": text, "value": -1.5}]) == f"name,value\n{text},-1.5\n"


def test_marks_of_direction_and_control_characters_are_written_out() -> None:
    assert visible("a\u202eb\x1b[31m\u200f\ud800") == "a\\u202eb\\x1b[31m\\u200f\\ud800"


def test_a_server_without_the_bulk_call_is_asked_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    server = fleet()
    key = "system/cpu_utilization_percentage"
    found = read_histories(server, ["1" * 32, "3" * 32], key)
    assert server.requests == ["get_metric_history"] * 2
    assert {run_id: len(points) for run_id, points in found.items()} == {"1" * 32: 361, "3" * 32: 361}


def test_fifty_runs_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows(_: object, run_ids: list[str], key: str) -> dict[str, list[tuple[int, float]]]:
        asked.append(len(run_ids))
        return {run_id: [(1, 2.0)] for run_id in run_ids}

    monkeypatch.setattr(measured_runs, "_bulk", rows)
    assert len(read_histories(fleet(), [str(index) for index in range(120)], "system/x")) == 120
    assert asked == [50, 50, 20]


JSON_RUN = {
    "info": {
        "run_id": "1",
        "experiment_id": "1",
        "status": "RUNNING",
        "start_time": "1790000000000",
        "user_id": "ada",
    },
    "data": {
        "tags": [{"key": "mlflow.runName", "value": "resnet"}, {"key": "empty"}],
        "metrics": [
            {"key": "system/x", "value": "NaN"},
            {"key": "system/y", "value": 2},
            {"key": "loss", "value": 1},
        ],
    },
}


def test_runs_of_a_server_are_read_from_its_json(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [{"runs": [JSON_RUN], "next_page_token": "next"}, {"runs": [{"info": JSON_RUN["info"]}]}, {}]
    asked = []

    def request(uri: str, method: str, path: str, timeout: float, *, json: dict[str, object]) -> ServerAnswer:
        asked.append(dict(json))
        return ServerAnswer(200, dumps(pages[len(asked) - 1]), {}, 0.1)

    monkeypatch.setattr(measured_runs, "request", request)
    monkeypatch.setattr(measured_runs, "_speaks_rest", lambda _: True)
    first, second = read_runs(FakeServer(uri="http://tracking:5000"), ["1"], 5)
    assert (first.name, first.user, first.started_at, first.ended_at) == (
        "resnet",
        "ada",
        1_790_000_000_000,
        None,
    )
    assert set(first.metrics) == {"system/x", "system/y"}
    assert second.metrics == {}
    assert [one.get("page_token") for one in asked] == [None, "next"]
    assert asked[0]["filter"] == "attributes.start_time >= 5"


@pytest.mark.parametrize(("cause", "falls_back"), [(Cause.NOT_MLFLOW, True), (Cause.FORBIDDEN, False)])
def test_a_server_that_answers_otherwise_is_asked_by_mlflow(
    cause: Cause, falls_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> ServerAnswer:
        raise Fault("no", cause)

    monkeypatch.setattr(measured_runs, "request", refuse)
    monkeypatch.setattr(measured_runs, "_speaks_rest", lambda _: True)
    server = fleet()
    if falls_back:
        assert len(read_runs(server, ["1"], None)) == 4
    else:
        with pytest.raises(Fault):
            read_runs(server, ["1"], None)
