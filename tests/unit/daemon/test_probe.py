"""The guard: a failing collector affects no other one and is never dropped for good."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise

import pytest

from fakes import LEVEL, Scripted, scripted
from mlflow_sysmetrics.daemon.sampling.probe import OK, Probe, ProbeSchedule
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample


def test_a_collector_is_built_at_its_first_reading_and_only_once() -> None:
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    assert collector.built == 0
    assert [sample.value for sample in probe.read(0)] == [1]
    probe.read(1)
    assert collector.built == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_finite_values_are_returned(value: float) -> None:
    collector = scripted(level=value, share=5)
    assert [sample.value for sample in Probe(collector, Host()).read(0)] == [5]


def test_samples_read_before_a_failure_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    collector = scripted(level=1)
    collector.error = RuntimeError("boom")
    probe = Probe(collector, Host())
    assert [sample.value for sample in probe.read(0)] == [1]
    assert probe.health == "failing: RuntimeError: boom"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_failing_collector_is_logged_when_its_health_changes_and_not_at_each_tick(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    collector = scripted(level=1)
    collector.error = RuntimeError("boom")
    probe = Probe(collector, Host())
    assert probe.health == "not read yet"
    for now in range(1000):
        probe.read(now)
    collector.error = None
    for now in range(1000, 2000):
        probe.read(now)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert probe.health == OK


def test_a_collector_can_be_built_anew() -> None:
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    probe.read(0)
    probe.renew()
    probe.read(1)
    assert collector.built == 2


def test_gaps_are_part_of_the_health() -> None:
    collector = scripted(level=1)
    collector.gaps = ("no swap", "no /data: it does not exist")
    probe = Probe(collector, Host())
    probe.read(0)
    assert probe.health == "ok, but no swap; no /data: it does not exist"


def test_intermittent_failures_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    for now in range(2000):
        collector.error = OSError(116, "Stale file handle") if now % 2 else None
        probe.read(now)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_system_exit_does_not_end_the_sampling(error: BaseException) -> None:
    collector = scripted(level=1)
    collector.error = error  # type: ignore[assignment]
    assert [sample.value for sample in Probe(collector, Host()).read(0)] == [1]


def test_a_non_numeric_value_is_a_failure_of_its_collector() -> None:
    collector = scripted(level=None)  # type: ignore[arg-type]
    probe = Probe(collector, Host())
    assert probe.read(0) == []
    assert probe.health.startswith("failing: TypeError")


def test_pauses_grow_to_five_minutes_and_no_longer() -> None:
    collector = scripted()
    collector.error = RuntimeError("boom")
    tries: list[int] = []
    collector.collect = lambda self, now: tries.append(now) or Scripted.collect(self, now)  # type: ignore[method-assign]
    probe = Probe(collector, Host())
    for now in range(3000):
        probe.read(now)
    pauses = [later - sooner for sooner, later in pairwise(tries)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pauses) == 300
    assert len(tries) > 12


def test_an_absent_source_is_not_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Absent(Scripted):
        def __init__(self, host: Host) -> None:
            del host
            raise Unavailable("/proc/pressure does not exist")

    probe = Probe(Absent, Host())
    assert probe.read(0) == []
    assert probe.health == "unavailable: /proc/pressure does not exist"
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_a_source_that_appears_later_is_found() -> None:
    present: list[bool] = []

    class Late(Scripted):
        values = {LEVEL: 3.0}  # noqa: RUF012 - like its base class

        def __init__(self, host: Host) -> None:
            if not present:
                raise Unavailable("not yet")
            super().__init__(host)

    probe = Probe(Late, Host())
    assert probe.read(0) == []
    present.append(True)
    assert [sample.value for sample in probe.read(1)] == [3]
    assert probe.health == OK


def test_the_guard_is_transparent_on_request() -> None:
    collector = scripted()
    collector.error = RuntimeError("boom")
    with pytest.raises(RuntimeError, match="boom"):
        Probe(collector, Host(), transparent=True).read(0)


def test_a_failure_whose_message_varies_is_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    for now in range(100):
        collector.error = ValueError(f"garbage {now}")
        probe.read(now * 300)
    assert len(caplog.records) == 1


def test_a_failure_after_a_recovery_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    for now in range(20):
        collector.error = OSError(5, "Input/output error") if now in {0, 19} else None
        probe.read(now)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert caplog.records[1].message == f"mlflow-sysmetrics: Collector {probe.name} is ok again."


def test_an_absent_source_that_appears_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    for now in range(20):
        collector.error = None if now else Unavailable("not yet")  # type: ignore[assignment]
        probe.read(now)
    assert caplog.records == []


def logged(caplog: pytest.LogCaptureFixture, *readings: Sequence[str]) -> list[str]:
    """Returns the log lines about a collector with a sequence of gaps."""
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    for now, gaps in enumerate(readings):
        collector.gaps = tuple(gaps)
        probe.read(now)
    start = f"mlflow-sysmetrics: Collector {probe.name}"
    return [f"{record.levelname} {record.message.removeprefix(start)}" for record in caplog.records]


LOST = ("gpu_1: GPU is lost",)


def test_a_gap_from_the_start_is_not_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, LOST, LOST) == ["INFO : gpu_1: GPU is lost."]


def test_a_new_gap_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, (), LOST, LOST) == ["WARNING : gpu_1: GPU is lost."]


def test_a_gap_that_comes_and_goes_at_every_tick_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, *[(), LOST] * 50) == ["WARNING : gpu_1: GPU is lost."]


def test_a_gap_that_returns_after_a_recovery_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    flap = [*[LOST] * 20, *[()] * 20]
    told = ["WARNING : gpu_1: GPU is lost.", "INFO  is ok again."]
    assert logged(caplog, (), *flap, *flap) == [*told, *told]


def test_a_closed_gap_is_logged_once_it_stays_closed(caplog: pytest.LogCaptureFixture) -> None:
    assert len(logged(caplog, (), LOST, *[()] * 9)) == 1
    caplog.clear()
    assert len(logged(caplog, (), LOST, *[()] * 10)) == 2


def test_remaining_gaps_are_logged_with_a_recovery(caplog: pytest.LogCaptureFixture) -> None:
    both = ("gpu_0: GPU is lost", *LOST)
    assert logged(caplog, (), both, *[LOST] * 20) == [
        "WARNING : gpu_0, gpu_1: GPU is lost.",
        "INFO  is now ok, but gpu_1: GPU is lost.",
    ]


def test_all_new_gaps_of_a_reading_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, ("no swap", "no /data: it does not exist")) == [
        "INFO : no swap; no /data: it does not exist."
    ]


def test_the_same_gap_of_many_devices_is_merged(caplog: pytest.LogCaptureFixture) -> None:
    gaps = [
        f"gpu_{number} {what}"
        for number in (0, 1, 2, 5, 6, 10)
        for what in ("power, energy: of the whole GPU, not of a slice", "ECC errors: no permission")
    ]
    names = "gpu_0 to gpu_2, gpu_5, gpu_6, gpu_10"
    merged = f"{names} power, energy: of the whole GPU, not of a slice; {names} ECC errors: no permission"
    assert logged(caplog, gaps) == [f"INFO : {merged}."]
    collector = scripted(level=1)
    collector.gaps = tuple(gaps)
    probe = Probe(collector, Host())
    probe.read(0)
    assert probe.health == f"ok, but {merged}"


def test_gaps_that_differ_each_time_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert len(logged(caplog, *[(f"garbage {now}",) for now in range(3000)])) == 20


def test_a_failure_that_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    collector = scripted(level=1)
    probe = Probe(collector, Host())
    for now in range(3000):
        collector.error = None if now % 20 else OSError(5, "Input/output error")
        probe.read(now)
    assert len(caplog.records) == 20


def test_a_used_up_log_budget_is_refilled(caplog: pytest.LogCaptureFixture) -> None:
    noise = [(f"garbage {now}",) for now in range(100)]
    lines = logged(caplog, *noise, *[LOST] * 3600)
    assert lines[20:] == ["WARNING : gpu_1: GPU is lost."]


def test_probes_that_are_paused_are_not_asked_until_their_pause_is_over() -> None:
    absent, there = scripted(level=1), scripted(level=2)
    absent.error = Unavailable("no such device")
    probes = [Probe(absent, Host()), Probe(there, Host())]
    schedule = ProbeSchedule(probes)
    asked: list[list[bool]] = []
    for now in range(40):
        awake = schedule.awake(float(now))
        asked.append([probe in awake for probe in probes])
        for probe in awake:
            probe.read(float(now))
    assert all(present for _, present in asked)
    tries = absent.built
    assert tries == 4, "at 0, 1, 5 and 21 seconds"
    assert sum(one for one, _ in asked) < 40


def test_between_points_it_reads_only_levels_of_a_collector_that_tells_them_apart() -> None:
    class Process(Scripted):
        def levels(self, now: float) -> tuple[Sample, ...]:
            return (LEVEL.sample(now),)

    Process.values = {LEVEL: 1}
    for collector, between in ((Process, [3]), (scripted(level=1), [1])):
        probe = Probe(collector, Host())
        assert [sample.value for sample in probe.read(0)] == [1]
        assert [sample.value for sample in probe.read(3, whole=False)] == between
