"""Points that a server refuses: they are dropped and counted, and all others of their run arrive."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from dead_processes import replayed
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import STARTED_AT, FakeClock, FakeSink, internal, invalid, run_refused, too_large, unreachable
from mlflow_sysmetrics.daemon.delivery import policy
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

pytestmark = pytest.mark.heavy

BAD = -5.0  #: a value that the servers here refuse


class PickySink(FakeSink):
    """Refuses some points or tags.

    Args:
        refuses: returns whether a point is refused.
        fault: what the server then answers.
        bad_tags: tags that it refuses.
    """

    def __init__(
        self,
        refuses: Callable[[Point], bool] = lambda point: point.value == BAD,
        fault: Callable[[str], Exception] = invalid,
        bad_tags: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.refuses, self.fault, self.bad_tags = refuses, fault, bad_tags
        self.requests = 0

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        self.requests += 1
        if any(map(self.refuses, points)) or self.bad_tags & set(tags):
            raise self.fault("HTTP refused")
        super().send(run_id, points, steps, tags)

    def values(self, run_id: str = "run") -> set[float]:
        return {point.value for point in self.points(run_id)}


class Bench:
    """A sender whose thread is the test."""

    def __init__(self, sink: FakeSink) -> None:
        self.clock = FakeClock()
        self.sink = sink
        self.sender = Sender("http://server", lambda _: sink, self.clock, jitter=lambda: 1.0)

    def put(self, values: Sequence[float], run_id: str = "run") -> RunQueue:
        queue = RunQueue(run_id, STARTED_AT, send_interval=10)
        points = [Point("system/x", value, STARTED_AT + n, n) for n, value in enumerate(values)]
        self.sender.append(queue, points)
        return queue

    def run(self, seconds: float, *, dropped: int | None = None) -> None:
        """Lets time pass, from one send to the next, or until so many points were dropped and none waits."""
        ends = self.clock.seconds + seconds
        while self.clock.seconds < ends and (dropped is None or self.counts[1:] != (dropped, 0)):
            self.sender.send_next()
            self.sender.log_messages()
            self.clock.move(min(max(self.sender.due_in(), 0.0), ends - self.clock.seconds))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Delivered, dropped and pending points."""
        counts = self.sender.counts()
        return counts.delivered, counts.dropped, counts.pending


def among(count: int, *bad: int) -> list[float]:
    """Returns so many values, with bad ones at some places."""
    return [BAD if n in bad else float(n) for n in range(count)]


def good(values: Sequence[float]) -> set[float]:
    return {value for value in values if value != BAD}


def test_one_point_among_a_thousand_is_dropped_and_the_others_arrive_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(sink := PickySink())
    bench.put(values := among(1000, 421))
    bench.run(12)
    assert sink.values() == good(values)
    assert bench.counts == (999, 1, 0)
    assert sink.requests < 50
    (warning,) = caplog.records
    assert "Run run does not accept system/x: HTTP refused." in warning.getMessage()
    assert {"sysmetrics.points_dropped": "1"} in [batch.tags for batch in sink.batches]


@pytest.mark.parametrize("place", [0, 1, 998, 999])
def test_the_place_of_the_point_does_not_matter(place: int) -> None:
    bench = Bench(sink := PickySink())
    bench.put(values := among(1000, place))
    bench.run(12)
    assert sink.values() == good(values)


def test_the_only_point_of_a_run_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(PickySink())
    queue = bench.put([BAD])
    bench.run(12)
    assert bench.counts == (0, 1, 0)
    assert queue.refused is None, "the run goes on"
    assert len(caplog.records) == 1


def test_a_whole_tick_of_a_wrong_clock_costs_few_requests() -> None:
    bench = Bench(sink := PickySink())
    bench.put(values := among(1000, *range(400, 500)))
    bench.run(12)
    assert sink.values() == good(values)
    assert bench.counts == (900, 100, 0)
    assert sink.requests < 300


@settings(max_examples=60)
@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.sampled_from([invalid, internal, too_large]),
)
def test_wherever_the_bad_points_are_the_good_ones_arrive(
    bad: list[bool], fault: Callable[[str], Exception]
) -> None:
    bench = Bench(sink := PickySink(fault=fault))
    values = [BAD if one else float(n) for n, one in enumerate(bad)]
    bench.put([*values, 1000.0])  # one good point, as a live run has sooner or later
    bench.run(400_000, dropped=bad.count(True))
    assert sink.values() == good(values) | {1000.0}
    assert bench.counts == (len(good(values)) + 1, bad.count(True), 0)


def test_one_bad_tag_does_not_cost_the_others_or_the_points() -> None:
    bench = Bench(sink := PickySink(bad_tags=frozenset({"sys.bad"})))
    queue = bench.put(among(5))
    bench.sender.append(queue, tags={"sys.a": "1", "sys.bad": "x", "sys.b": "2", "sys.c": "3"})
    bench.run(12)
    assert sink.values() == set(among(5))
    set_tags = {key for batch in sink.batches for key in batch.tags}
    assert set_tags == {"sys.a", "sys.b", "sys.c"}
    assert queue.empty


@pytest.mark.parametrize("how", ["unknown run", "refused run"])
def test_a_run_that_takes_no_empty_batch_is_given_up_as_a_whole(how: str) -> None:
    sink = PickySink(refuses=lambda _: True)

    def refuses(run_id: str) -> int:
        raise (run_refused if how == "unknown run" else invalid)(f"HTTP 400: run {run_id}")

    sink.started_at = refuses  # type: ignore[method-assign]
    bench = Bench(sink)
    bench.put(among(500))
    bench.run(12)
    assert bench.counts == (0, 500, 0)
    assert sink.requests == 1


def test_a_run_that_takes_no_point_at_all_is_given_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_MOST_REFUSALS_IN_A_ROW", 50)
    bench = Bench(sink := PickySink(refuses=lambda _: True))
    queue = bench.put(among(900))
    bench.run(30)
    assert queue.refused == "HTTP refused"
    assert bench.counts == (0, 900, 0)
    assert sink.requests < 80


@pytest.mark.parametrize("fault", [internal, too_large], ids=["HTTP 500", "HTTP 413"])
def test_an_error_that_proves_nothing_drops_a_point_only_beside_others_that_pass(
    fault: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(sink := PickySink(fault=fault))
    bench.put(values := among(1000, 421))
    bench.run(120)
    assert sink.values() == good(values)
    assert bench.counts == (999, 1, 0)
    assert len(caplog.records) <= 2


@pytest.mark.parametrize(
    "fault",
    [
        internal,
        too_large,
        lambda reason: Fault(reason, Cause.FAILED, status_code=400, error_code="BAD_REQUEST"),
        lambda reason: Fault(reason, Cause.NOT_MLFLOW, status_code=400),
        TypeError,
    ],
    ids=["internal", "too large", "vague", "firewall", "local"],
)
def test_a_server_that_is_sick_for_hours_loses_nothing(
    fault: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(sink := PickySink(refuses=lambda _: True, fault=fault))
    values = among(300)
    queue = bench.put(values)
    for hour in range(5):
        bench.run(3600)
        bench.sender.append(queue, [Point("system/x", 1000.0 + hour, STARTED_AT + hour, hour)])
    assert bench.counts == (0, 0, 305)
    assert len(caplog.records) == 1
    sink.refuses = lambda _: False
    bench.run(200)
    assert bench.counts == (305, 0, 0)
    assert sink.values() == {*values, *(1000.0 + hour for hour in range(5))}


def test_a_sick_metrics_table_loses_nothing_although_tags_are_taken() -> None:
    bench = Bench(PickySink(refuses=lambda _: True, fault=internal))
    queue = bench.put(among(3))
    for _ in range(20):
        bench.sender.append(queue, tags={"sys.a": "1"})
        bench.run(100)
    assert bench.counts == (0, 0, 3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_server_that_fails_at_random_loses_nothing(share: float) -> None:
    drawn = random.Random(7)
    bench = Bench(sink := PickySink(refuses=lambda _: False))
    send = sink.send

    def flaps(*batch: object) -> None:
        if drawn.random() < share:
            raise internal("HTTP 500")
        send(*batch)  # type: ignore[arg-type]

    sink.send = flaps  # type: ignore[method-assign]
    bench.put(values := among(400))
    bench.run(2_000_000, dropped=0)
    assert sink.values() == set(values)
    assert bench.counts == (400, 0, 0)


def test_a_recovery_in_the_middle_of_the_search_loses_nothing() -> None:
    """The other point happens to be the first that a server takes after an outage."""
    for attempts in range(1, 25):
        bench = Bench(sink := PickySink(refuses=lambda _: True, fault=internal))
        bench.put(among(8))
        while sink.requests < attempts:
            bench.run(1)
        sink.refuses = lambda _: False
        bench.run(200)
        assert bench.counts == (8, 0, 0), attempts


def test_a_proxy_that_takes_nothing_is_named_with_its_setting(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(PickySink(refuses=lambda _: True, fault=too_large))
    bench.put(among(1000))
    bench.run(1000)
    assert bench.counts == (0, 0, 1000)
    (warning,) = caplog.records
    assert "client_max_body_size" in warning.getMessage()


@pytest.mark.parametrize(
    "error",
    [
        TypeError("Object of type bytes is not JSON serializable"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        Fault("ValueError: invalid header", Cause.DOWN, is_local=True),
    ],
)
def test_a_run_whose_request_cannot_be_made_does_not_delay_the_others(error: Exception) -> None:
    bench = Bench(sink := PickySink())
    send = sink.send

    def broken(run_id: str, *rest: object) -> None:
        if run_id == "bad":
            raise error
        send(run_id, *rest)  # type: ignore[arg-type]

    sink.send = broken  # type: ignore[method-assign]
    bench.put(among(3), "bad")
    bench.put(among(3), "good")
    bench.clock.move(11)
    assert bench.sender.send_next()
    assert bench.sender.send_next()
    assert sink.values("good")


def test_a_run_that_fails_again_and_again_pauses_the_server_for_none_that_are_served() -> None:
    bench = Bench(sink := PickySink())
    send = sink.send

    def broken(run_id: str, *rest: object) -> None:
        if run_id == "bad":
            raise unreachable("HTTP 502")
        send(run_id, *rest)  # type: ignore[arg-type]

    sink.send = broken  # type: ignore[method-assign]
    bench.put(among(3), "bad")
    bench.run(13)
    for number in range(20):
        bench.put(among(1), f"good-{number}")
        bench.run(30)
    assert bench.sender._schedule._pause.until < bench.clock.seconds
    assert all(sink.values(f"good-{number}") for number in range(20))


def left_by_a_dead_process(directory: Path, bad: int) -> Path:
    """Leaves a journal with ten points at each of nine good moments, and at some bad ones before 1970."""
    journal = Journal.create(directory, 10**8)
    number = journal.register("run", "http://server:5000", STARTED_AT)
    for tick in range(9):
        timestamp = -5 if tick < bad else STARTED_AT + tick * 1000
        journal.append(number, tick * 10, timestamp, {f"system/s{n}": float(n) for n in range(10)})
    journal.end(number)
    journal.close(delete=False)
    return journal.path


@pytest.mark.parametrize("bad", [1, 4, 9])
def test_points_of_a_dead_process_arrive_without_those_that_are_refused(tmp_path: Path, bad: int) -> None:
    sink = PickySink(refuses=lambda point: point.timestamp < 0)
    path = left_by_a_dead_process(tmp_path, bad)
    done = replayed(path, sink)
    assert (done.delivered, done.dropped, done.waiting) == (90 - 10 * bad, 10 * bad, 0)
    assert done.refused == (
        f"http://server:5000: does not accept {10 * bad} points of run run (HTTP refused); dropped",
    )
    assert not path.exists()


def test_a_message_is_logged_once_for_a_run_with_bad_points_all_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    bench = Bench(sink := PickySink())
    queue = bench.put(among(3, 1))
    for n in range(30):
        bench.run(10)
        bench.sender.append(queue, [Point("system/x", BAD if n % 2 else 100.0 + n, STARTED_AT + n, n)])
    bench.run(20)
    assert bench.counts == (2 + 15, 1 + 15, 0)
    assert len(caplog.records) == 1
    assert len(sink.values()) == 17
