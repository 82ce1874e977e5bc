"""Runs of a sampler on simulated machines: what they are told about themselves while they last, and at their end."""

from __future__ import annotations

import logging

import pytest

from mlflow_sysmetrics.daemon.delivery.host_tags import has_host_tags
from mlflow_sysmetrics.daemon.delivery.sink import Connection
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.settings import METRICS_TAG
from mlflow_sysmetrics.summary import announcer as announcer_module
from mlflow_sysmetrics.summary.announcer import NO_PROGRESS
from mlflow_sysmetrics.summary.description import NOTE_TAG
from mlflow_sysmetrics.summary.live_run import REFRESH_SECONDS
from mlflow_sysmetrics.summary.rules import HEALTHY
from mlflow_sysmetrics.summary.summary import ALERT_TAG, PREFIX, VERDICT_TAG, Surroundings
from simulated_machine import SimulatedMachine
from simulated_ticks import FINE, GPU_NODE, KINDS, SILENT, Tick, gpu, host, steady

CASES = list(KINDS)
STARVED, _ = KINDS["gpu-starved"]
UNUSED, _ = KINDS["gpu-unused"]


@pytest.fixture(autouse=True)
def _on_a_gpu_node(monkeypatch: pytest.MonkeyPatch) -> None:
    run_on(GPU_NODE, monkeypatch)


def run_on(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "surroundings", lambda: around)


def verdict(machine: SimulatedMachine, run_id: str = "run") -> str | None:
    line = machine.sink.tags_of(run_id).get(VERDICT_TAG)
    return None if line is None else line.partition(":")[0]


def whole_run(tick: Tick, minutes: float, interval: float = 10, **settings: object) -> SimulatedMachine:
    machine = SimulatedMachine(tick, interval)
    series = machine.start(**settings)
    machine.pass_time(minutes * 60)
    machine.end(series)
    return machine


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_run_is_told_its_verdict_and_only_that(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick, around = KINDS[name]
    run_on(around, monkeypatch)
    machine = whole_run(tick, 75, 20)
    line = machine.sink.tags_of("run")[VERDICT_TAG]
    assert line.startswith(f"{name}: ")
    assert "Also:" not in line
    assert f"**{name}**" in machine.sink.tags_of("run")[NOTE_TAG]


@pytest.mark.heavy
@pytest.mark.parametrize("name", SILENT)
def test_runs_that_users_complain_of_are_told_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tick, minutes, around = SILENT[name]
    run_on(around, monkeypatch)
    machine = whole_run(tick, minutes, 20)
    assert verdict(machine) in ({HEALTHY} if name in FINE else {None, "-"})
    assert machine.alerts.taken == []


def test_figures_are_refreshed_every_five_minutes_with_a_send_and_at_the_end() -> None:
    machine = SimulatedMachine(steady)
    series = machine.start()
    machine.pass_time(290)
    key = f"{PREFIX}gpu_utilization_mean_percentage"
    assert machine.last(key) is None
    sends = len(machine.sink.batches)
    machine.pass_time(3 * REFRESH_SECONDS)
    with_summary = [b for b in machine.sink.batches if any(p.key.startswith(PREFIX) for p in b.points)]
    assert len(with_summary) == 3
    assert all(any(not p.key.startswith(PREFIX) for p in b.points) for b in with_summary)
    assert len(machine.sink.batches) - sends <= 3 * REFRESH_SECONDS / 10
    machine.end(series)
    assert machine.last(key) == pytest.approx(93, abs=0.1)
    assert machine.last(f"{PREFIX}measured_hours") == pytest.approx(1190 / 3600, abs=1e-4)
    assert machine.last(f"{PREFIX}gpu_hours") == pytest.approx(1190 / 3600, abs=1e-4)


def test_a_short_run_has_no_summary() -> None:
    machine = whole_run(steady, 9 / 60)
    assert [p.key for p in machine.sink.points("run") if p.key.startswith(PREFIX)] == []
    assert VERDICT_TAG not in machine.sink.tags_of("run")


def test_a_run_that_is_killed_after_seven_minutes_has_a_summary_and_a_verdict() -> None:
    machine = SimulatedMachine(STARVED)
    machine.start()
    machine.pass_time(7 * 60)
    assert verdict(machine) == "gpu-starved"
    assert machine.last(f"{PREFIX}gpu_hours") == pytest.approx(300 / 3600, abs=0.004)


@pytest.mark.heavy
def test_the_gpu_hours_of_64_runs_add_up_to_the_wall_time() -> None:
    def tick(second: int) -> dict[str, float]:
        return {**host(), **gpu(used=0 if second < 600 else 90), "gpu_0_energy_watt_hours": second / 36}

    machine = SimulatedMachine(tick)
    runs = []
    for number in range(64):
        runs.append(machine.start(f"run-{number}"))
        machine.pass_time(7)
    machine.pass_time(1200)
    for series in runs:
        machine.end(series)
        machine.pass_time(11)
    seconds = 64 * 7 + 1200 + 63 * 11

    def total(name: str) -> float:
        return sum(machine.last(PREFIX + name, f"run-{number}") or 0 for number in range(64))

    assert total("gpu_hours") * 3600 == pytest.approx(seconds, abs=1)
    assert total("energy_watt_hours") == pytest.approx(seconds / 36, rel=1e-3)
    idle = sum(
        (machine.last(f"{PREFIX}gpu_hours", f"run-{n}") or 0)
        * (machine.last(f"{PREFIX}gpu_idle_percentage", f"run-{n}") or 0)
        for n in range(64)
    )
    assert idle / 100 * 3600 == pytest.approx(600, abs=12)  # ticks are ten seconds apart
    assert machine.last(f"{PREFIX}measured_hours", "run-0") == pytest.approx((64 * 7 + 1200) / 3600, abs=1e-3)
    assert machine.sampler.history._segments == []


def test_totals_count_from_the_begin_of_each_run() -> None:
    machine = SimulatedMachine(lambda second: {**host(), **gpu(), "gpu_0_energy_watt_hours": 5000 + second})
    first = machine.start("first")
    machine.pass_time(100)
    second = machine.start("second")
    machine.end(first)
    machine.pass_time(100)
    machine.end(second)
    assert machine.last(f"{PREFIX}energy_watt_hours", "first") == pytest.approx(100)
    assert machine.last(f"{PREFIX}energy_watt_hours", "second") == pytest.approx(100)


def test_figures_of_a_resumed_run_are_those_of_all_parts() -> None:
    machine = SimulatedMachine(steady)
    series = machine.start()
    assert series.announcer is not None
    series.announcer.continue_from(
        {
            f"{PREFIX}gpu_hours": 1.0,
            f"{PREFIX}measured_hours": 2.0,
            f"{PREFIX}gpu_utilization_mean_percentage": 43.0,
            f"{PREFIX}memory_max_percentage": 99.0,
            f"{PREFIX}node_1/gpu_hours": 7.0,
            "loss": 1.0,
        }
    )
    machine.pass_time(3600)
    machine.end(series)
    assert machine.last(f"{PREFIX}gpu_hours") == pytest.approx(2)
    assert machine.last(f"{PREFIX}measured_hours") == pytest.approx(3)
    assert machine.last(f"{PREFIX}gpu_utilization_mean_percentage") == pytest.approx((43 + 93) / 2, abs=0.5)
    assert machine.last(f"{PREFIX}memory_max_percentage") == 99


def test_the_description_of_the_user_is_left_alone() -> None:
    machine = SimulatedMachine(STARVED)
    machine.sink.present = {NOTE_TAG: "my notes"}
    series = machine.start()
    machine.pass_time(400)
    machine.end(series)
    assert NOTE_TAG not in machine.sink.tags_of("run")
    assert verdict(machine) == "gpu-starved"


def test_what_the_user_writes_around_the_block_is_kept() -> None:
    machine = SimulatedMachine(STARVED)
    series = machine.start()
    machine.pass_time(400)
    block = machine.sink.tags_of("run")[NOTE_TAG]
    machine.sink.batches[-1].tags[NOTE_TAG] = f"before\n\n{block}\n\nafter"
    machine.pass_time(3600)
    machine.end(series)
    text = machine.sink.tags_of("run")[NOTE_TAG]
    assert text.startswith("before\n\n<!--")
    assert text.endswith("-->\n\nafter")
    assert "1 h 6 min" in text
    assert text.count("gpu-starved") == 1


def test_a_description_that_is_written_while_a_send_fails_is_kept() -> None:
    machine = SimulatedMachine(STARVED)
    series = machine.start()
    machine.pass_time(200)
    machine.sink.failures = [Fault("busy", Cause.DOWN)] * 3
    machine.sampler.remove(series)
    machine.pass_time(150)
    machine.sink.present = {NOTE_TAG: "mine"}
    machine.pass_time(0)
    machine.clock.move(600)
    machine.send()
    assert NOTE_TAG not in machine.sink.tags_of("run")


@pytest.mark.parametrize(
    ("settings", "tags"),
    [
        ({"description": False}, {VERDICT_TAG, ALERT_TAG}),
        ({"summary": False}, set()),
        ({"tags": False}, set()),
    ],
)
def test_each_part_can_be_switched_off(settings: dict[str, object], tags: set[str]) -> None:
    machine = whole_run(STARVED, 16, **settings)
    found = machine.sink.tags_of("run").keys() & {VERDICT_TAG, ALERT_TAG, NOTE_TAG}
    assert found == tags
    has_figures = machine.last(f"{PREFIX}gpu_hours") is not None
    assert has_figures == ("summary" not in settings)


def test_a_node_that_does_not_speak_for_the_run_sends_its_figures_only() -> None:
    machine = SimulatedMachine(STARVED)
    series = machine.start(node_id="node_1")
    assert series.announcer is not None
    series.announcer.speaks = False
    machine.pass_time(400)
    machine.end(series)
    assert machine.last(f"{PREFIX}node_1/gpu_hours") is not None
    assert machine.sink.tags_of("run").keys() & {VERDICT_TAG, ALERT_TAG, NOTE_TAG} == set()


def test_a_cause_is_reported_once_while_the_run_lasts(caplog: pytest.LogCaptureFixture) -> None:
    def tick(second: int) -> dict[str, float]:
        return dict(steady(second) if second < 3000 else STARVED(second))

    machine = SimulatedMachine(tick)
    with caplog.at_level(logging.WARNING):
        series = machine.start(alert="cmd:notify")
        machine.pass_time(3000)
        assert machine.alerts.taken == []
        machine.pass_time(6000)
        machine.end(series)
    ((target, alert),) = machine.alerts.taken
    assert (target, alert.name) == ("cmd:notify", "gpu-starved")
    assert len([one for one in caplog.messages if "gpu-starved" in one]) == 1
    assert "gpu-starved: GPU 0 alternated" in machine.sink.tags_of("run")[ALERT_TAG]


def test_alerts_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    machine = whole_run(STARVED, 20, alert="off")
    assert machine.alerts.taken == []
    assert caplog.messages == []


def still(second: int) -> dict[str, float]:
    """A GPU with a model on it that works for a quarter of an hour, then waits."""
    return {**host(3), **gpu(used=90 if second < 900 else 0)}


def test_a_run_that_makes_no_progress_is_reported() -> None:
    machine = SimulatedMachine(still)
    machine.sink.last_metric_at = machine.clock.wall() + 900_000
    machine.start()
    machine.pass_time(2400)
    assert [alert.name for _, alert in machine.alerts.taken].count(NO_PROGRESS) == 1
    assert f"{NO_PROGRESS}: The GPUs did nothing" in machine.sink.tags_of("run")[ALERT_TAG]


def test_a_run_that_logs_metrics_makes_progress() -> None:
    machine = SimulatedMachine(still)
    series = machine.start()
    for _ in range(24):
        machine.sink.last_metric_at = machine.clock.wall()
        machine.pass_time(100)
    machine.end(series)
    assert NO_PROGRESS not in [alert.name for _, alert in machine.alerts.taken]


def test_a_busy_gpu_is_progress_enough() -> None:
    machine = SimulatedMachine(steady)
    machine.sink.last_metric_at = 0
    machine.start()
    machine.pass_time(3600)
    assert machine.alerts.taken == []


def test_a_server_that_hides_the_run_gets_points_and_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SimulatedMachine(STARVED)
    series = machine.start()
    asked: list[str] = []

    def refuse(connection: Connection, queue: object) -> None:
        del connection, queue
        asked.append("state")
        raise Fault("no", Cause.FORBIDDEN, status_code=403)

    monkeypatch.setattr(Connection, "state", refuse)
    machine.pass_time(400)
    machine.end(series)
    assert verdict(machine) == "gpu-starved"
    assert NOTE_TAG not in machine.sink.tags_of("run")
    assert len(asked) == 2  # one for each refresh, and none again and again
    assert series.channel.queue.empty


def test_a_fault_in_the_statistics_costs_no_points(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcer_module, "verdict_line", lambda _: 1 / 0)
    machine = whole_run(STARVED, 20)
    assert machine.last("system/gpu_0_utilization_percentage") is not None
    assert machine.last(f"{PREFIX}gpu_hours") is None
    assert len([one for one in caplog.messages if "gets no summary: ZeroDivisionError" in one]) == 1


def test_statistics_are_those_of_every_tick() -> None:
    machine = SimulatedMachine(lambda second: {**host(), **gpu(used=100.0 if second % 10 == 4 else 1.0)}, 1)
    series = machine.start()
    machine.pass_time(600)
    machine.end(series)
    points = [p.value for p in machine.sink.points("run") if p.key == "system/gpu_0_utilization_percentage"]
    assert max(points) < 50  # means of ten seconds
    assert machine.last(f"{PREFIX}gpu_utilization_p95_percentage") == pytest.approx(100, rel=0.02)
    assert machine.last(f"{PREFIX}gpu_idle_percentage") == pytest.approx(90, abs=0.5)


def test_a_run_with_a_verdict_may_lack_the_tags_of_its_machine() -> None:
    assert not has_host_tags({VERDICT_TAG: "healthy: ...", ALERT_TAG: "...", METRICS_TAG: "on"})
    assert has_host_tags({VERDICT_TAG: "healthy: ...", "sys.cpu": "..."})
