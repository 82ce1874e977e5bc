"""Delivery: when, in which order, and what happens if the server fails. No threads, no waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from fakes import STARTED_AT, FakeClock, FakeSink, not_allowed, run_refused, too_large, unreachable
from mlflow_sysmetrics.daemon.delivery import sender as sender_module
from mlflow_sysmetrics.daemon.delivery.flush import Deadline
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from watching import LONG_SECONDS

URI = "http://user:secret@server:5000"


class Bench:
    """A sender whose thread is the test: its clock, its sink, and queues to fill."""

    def __init__(self, **bounds: int) -> None:
        self.clock = FakeClock()
        self.sink = FakeSink()
        self.opened = 0
        memory = MemoryBudget(**({"in_flight": 0} | bounds))
        self.sender = Sender(URI, self.open, self.clock, jitter=lambda: 1.0, memory=memory)

    def open(self, uri: str) -> FakeSink:
        assert uri == URI
        self.opened += 1
        return self.sink

    def queue(
        self, run_id: str = "run", started_at: int | None = STARTED_AT, early_interval: float | None = None
    ) -> RunQueue:
        return RunQueue(run_id, started_at, send_interval=10, early_interval=early_interval)

    def put(self, queue: RunQueue, count: int = 1) -> None:
        first = queue.appended
        points = [Point("system/x", float(n), STARTED_AT + n * 1000) for n in range(first, first + count)]
        self.sender.append(queue, points)

    def run_until(self, seconds: float, step: float = 0.5) -> None:
        """Lets time pass as the thread would see it."""
        while self.clock.seconds < 100 + seconds:
            while self.sender.send_next():
                pass
            self.sender.log_messages()
            self.clock.move(step)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_points_are_sent_together_once_per_send_interval(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue)
    bench.run_until(1.5)
    for _ in range(5):
        bench.put(queue)
        assert not bench.sender.send_next()
        bench.clock.move(1)
    bench.clock.move(5.5)
    assert bench.sender.send_next()
    assert not bench.sender.send_next()
    assert [len(batch.points) for batch in bench.sink.batches] == [1, 5]
    assert bench.sender.counts().delivered == 6


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (0.2, [1.0, 11.0, 21.0]),
        (1.0, [1.0, 11.0, 21.0]),
        (2.0, [0.5, 2.0, 12.0, 22.0]),
        (10.0, [0.5, 10.0, 20.0]),
    ],
)
def test_the_first_points_are_sent_at_once_and_the_first_rates_as_soon_as_they_are_there(
    bench: Bench, interval: float, expected: list[float]
) -> None:
    queue = bench.queue(early_interval=interval)
    sent: list[float] = []
    for _ in range(300):
        bench.put(queue)
        if bench.sender.send_next():
            sent.append(bench.clock.seconds - 100)
        bench.clock.move(0.1)
    assert sent[: len(expected)] == pytest.approx(expected, abs=1)


def test_a_run_that_is_over_at_once_costs_one_request(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue)
    bench.clock.move(0.1)
    assert not bench.sender.send_next()
    bench.put(queue)
    bench.sender.expedite([queue])
    bench.sender.close(queue)
    bench.run_until(60)
    assert [len(batch.points) for batch in bench.sink.batches] == [2]


def test_a_point_that_comes_when_the_send_is_due_travels_with_it(bench: Bench) -> None:
    """Windows and sends of ten seconds each: every point is sent when it is made."""
    queue = bench.queue()
    bench.put(queue)
    for _ in range(5):
        bench.run_until(bench.clock.seconds - 100 + 10)
        bench.put(queue)
        assert bench.sender.send_next()
    assert [len(batch.points) for batch in bench.sink.batches] == [1, 1, 1, 1, 1, 1]


def test_points_every_second_are_sent_every_ten_seconds_not_every_eleven(bench: Bench) -> None:
    queue = bench.queue()
    for _ in range(61):
        bench.put(queue)
        bench.run_until(bench.clock.seconds - 100 + 1)
    assert [len(batch.points) for batch in bench.sink.batches] == [2, 9, 10, 10, 10, 10, 10]


def test_steps_are_whole_seconds_since_the_start_of_the_run(bench: Bench) -> None:
    queue = bench.queue(started_at=STARTED_AT - 7_900)
    bench.put(queue, 3)
    bench.run_until(11)
    assert bench.sink.batches[0].steps == [7, 8, 9]
    assert bench.sink.asked == []


def test_an_unknown_start_is_requested_once(bench: Bench) -> None:
    queue = bench.queue(started_at=None)
    bench.put(queue, 2)
    bench.run_until(11)
    bench.put(queue, 2)
    bench.run_until(22)
    assert bench.sink.asked == ["run"]
    assert [batch.steps for batch in bench.sink.batches] == [[0, 1], [2, 3]]


def test_a_batch_has_at_most_a_thousand_points_and_the_rest_follows_at_once(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue, 2500)
    bench.run_until(11)
    assert [len(batch.points) for batch in bench.sink.batches] == [1000, 1000, 500]


def test_tags_travel_with_the_points_and_once(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue)
    bench.sender.append(queue, tags={"sys.gpu": "None"})
    bench.run_until(11)
    bench.put(queue)
    bench.run_until(25)
    assert [batch.tags for batch in bench.sink.batches] == [{"sys.gpu": "None"}, {}]


class FakeHostTags:
    """The host tags, which may be complete later."""

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags
        self.later: list[Callable[[dict[str, str]], object]] = []

    def __call__(self, later: Callable[[dict[str, str]], object]) -> dict[str, str]:
        self.later.append(later)
        return self.tags


def made_elsewhere(bench: Bench, host_tags: dict[str, str]) -> FakeHostTags:
    """Has the first points of a run sent that may have been made elsewhere."""
    bench.sender._host_tags = found = FakeHostTags(host_tags)
    queue = bench.queue()
    bench.sender.append(queue, host_tags=True)
    bench.put(queue)
    bench.run_until(2)
    return found


def test_a_run_made_elsewhere_gets_host_tags_with_its_first_points(bench: Bench) -> None:
    bench.sink.present = {"mlflow.user": "u", "sys.metrics": "on"}
    made_elsewhere(bench, {"sys.cpu": "EPYC"})
    assert [(len(batch.points), batch.tags) for batch in bench.sink.batches] == [(1, {"sys.cpu": "EPYC"})]


def test_a_run_that_has_host_tags_keeps_them(bench: Bench) -> None:
    bench.sink.present = {"sys.hostname": "first"}
    found = made_elsewhere(bench, {"sys.hostname": "second"})
    assert [(len(batch.points), batch.tags) for batch in bench.sink.batches] == [(1, {})]
    assert not found.later


def test_host_tags_that_are_known_later_follow(bench: Bench) -> None:
    found = made_elsewhere(bench, {})
    (later,) = found.later
    later({"sys.cpu": "EPYC"})
    bench.run_until(20)
    assert [batch.tags for batch in bench.sink.batches] == [{}, {"sys.cpu": "EPYC"}]


def test_points_do_not_wait_for_a_server_that_does_not_show_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(run_id: str) -> dict[str, str]:
        asked.append(run_id)
        raise Fault("forbidden", Cause.FORBIDDEN)

    monkeypatch.setattr(bench.sink, "tags", refuse)
    queue = bench.queue()
    bench.sender.append(queue, host_tags=True)
    for _ in range(9):
        bench.put(queue)
        bench.run_until(bench.clock.seconds - 100 + 10)
    assert bench.sender.counts().delivered == 9
    assert len(asked) == 3


def test_an_outage_loses_nothing_and_keeps_the_order(bench: Bench) -> None:
    queue = bench.queue()
    bench.sink.down = True
    for _ in range(60):
        bench.put(queue)
        bench.run_until(bench.clock.seconds - 100 + 1)
    assert bench.sink.batches == []
    bench.sink.down = False
    bench.run_until(200)
    assert [point.value for point in bench.sink.points("run")] == list(range(60))


def test_pauses_double_up_to_a_minute(bench: Bench) -> None:
    queue = bench.queue()
    attempts: list[float] = []
    bench.sink.send = lambda *_: attempts.append(bench.clock.seconds) or _raise(unreachable("no"))  # type: ignore[method-assign]
    bench.put(queue)
    bench.run_until(400, step=1)
    pauses = [later - sooner for sooner, later in pairwise(attempts)]
    assert pauses == [1, 2, 4, 8, 16, 32] + [60] * (len(pauses) - 6)
    assert len(pauses) > 8


def _raise(error: Exception) -> None:
    raise error


def test_an_outage_is_one_warning_without_secrets_and_its_end_one_line(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    bench.sink.failures = [unreachable("connection refused")] * 5
    bench.put(bench.queue())
    bench.run_until(100)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "http://server:5000" in caplog.text
    assert "connection refused" in caplog.text
    assert "secret" not in caplog.text


def test_one_failing_run_does_not_block_the_others(bench: Bench) -> None:
    bad, good = bench.queue("bad"), bench.queue("good")
    send = bench.sink.send

    def choke(run_id: str, *rest: object) -> None:
        if run_id == "bad":
            raise unreachable("HTTP 500")
        send(run_id, *rest)  # type: ignore[arg-type]

    bench.sink.send = choke  # type: ignore[method-assign]
    bench.put(bad)
    bench.put(good)
    bench.run_until(13)
    assert bench.sink.points("good")


def test_one_failing_run_among_others_warns_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = bench.queue("bad"), bench.queue("good")
    send = bench.sink.send
    tries: list[float] = []

    def choke(run_id: str, *rest: object) -> None:
        if run_id == "bad":
            tries.append(bench.clock.seconds)
            raise unreachable("HTTP 403")
        send(run_id, *rest)  # type: ignore[arg-type]

    bench.sink.send = choke  # type: ignore[method-assign]
    for _ in range(300):
        bench.put(bad)
        bench.put(good)
        bench.run_until(bench.clock.seconds - 100 + 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(bench.sink.points("good")) > 280
    assert len(tries) < 15, "it must not knock whenever another run is served"


def test_an_unexpected_answer_does_not_end_the_thread(bench: Bench) -> None:
    queue = bench.queue(started_at=None)
    bench.sink.started_at = lambda _: {}["run"]  # type: ignore[method-assign,index]
    bench.put(queue)
    bench.run_until(30)
    assert bench.sender.counts().last_error == "KeyError: 'run'"
    assert bench.sender.counts().pending == 1


def test_a_blocking_log_handler_delays_only_the_thread(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    queue = bench.queue()
    seen: list[int] = []

    class Blocking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            del record
            other = threading.Thread(target=lambda: (bench.put(queue), seen.append(1)))
            other.start()
            other.join(timeout=60)

    handler = Blocking()
    logging.getLogger("mlflow_sysmetrics").addHandler(handler)
    try:
        bench.sink.down = True
        bench.put(queue)
        bench.run_until(12)
    finally:
        logging.getLogger("mlflow_sysmetrics").removeHandler(handler)
    assert seen == [1]
    assert len(caplog.records) == 1


def test_a_deleted_run_is_given_up_and_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    gone, other = bench.queue("gone"), bench.queue("other")
    bench.sink.failures = [run_refused("HTTP 404 RESOURCE_DOES_NOT_EXIST")]
    bench.put(gone, 3)
    bench.put(other, 2)
    bench.run_until(11)
    bench.put(gone, 4)
    bench.run_until(30)
    counts = bench.sender.counts()
    assert (counts.delivered, counts.dropped, counts.pending) == (2, 7, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Run gone" in caplog.text


def test_too_many_points_drop_the_oldest_and_count_them(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(unsaved=100)
    small, large = bench.queue("small"), bench.queue("large")
    bench.sink.down = True
    bench.put(small, 10)
    bench.run_until(11)
    bench.put(large, 150)
    bench.sender.log_messages()
    counts = bench.sender.counts()
    assert (counts.pending, counts.dropped) == (100, 60)
    bench.sink.down = False
    bench.run_until(30)
    assert [point.value for point in bench.sink.points("large")] == list(range(60, 150))
    assert len(bench.sink.points("small")) == 10
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "has been down for too long: dropping" in caplog.text


def test_points_that_come_faster_than_a_server_takes_them_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """A busy machine: nothing has failed, so neither the server nor the disk is to blame."""
    bench = Bench(unsaved=100)
    queue = bench.queue()
    bench.put(queue, 399)
    assert bench.sender.counts().dropped == 0
    bench.run_until(11)
    assert len(bench.sink.points("run")) == 399
    assert not caplog.records


def test_points_that_come_far_faster_than_a_server_takes_them_are_dropped_for_that_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(unsaved=100)
    bench.put(bench.queue(), 450)
    bench.sender.log_messages()
    assert bench.sender.counts().dropped == 50
    assert "http://server:5000 does not take points fast enough: dropping the oldest" in caplog.text


def test_thousands_of_runs_in_excess_of_the_memory_are_not_looked_through_at_each_point() -> None:
    bench = Bench(unsaved=1000)
    queues = [bench.queue(str(number)) for number in range(1040)]
    looked = [0]

    class Watched(type(bench.sender._schedule)):  # type: ignore[misc]
        def __iter__(self) -> Iterator[RunQueue]:
            looked[0] += 1
            return super().__iter__()

    bench.sender._schedule.__class__ = Watched
    for queue in queues:
        bench.put(queue)
    assert looked[0] <= 4


def test_points_dropped_during_their_request_are_counted_once() -> None:
    bench = Bench(unsaved=5)
    queue = bench.queue()
    bench.put(queue, 5)
    bench.clock.move(11)
    send = bench.sink.send

    def slow(*batch: object) -> None:
        bench.put(queue, 18)  # arrives during the request and pushes three of the points under way out
        send(*batch)  # type: ignore[arg-type]

    bench.sink.send = slow  # type: ignore[method-assign]
    bench.sender.send_next()
    bench.sink.send = send  # type: ignore[method-assign]
    bench.run_until(40)
    counts = bench.sender.counts()
    assert (counts.delivered, counts.dropped, counts.pending) == (20, 3, 0)
    assert [point.value for point in bench.sink.points("run")] == list(range(23))


def test_a_client_that_cannot_be_made_is_tried_again(bench: Bench) -> None:
    sinks = [ValueError("unsupported scheme"), bench.sink]

    def open_sink(_: str) -> FakeSink:
        found = sinks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    bench.sender._connection._open_sink = open_sink
    bench.put(bench.queue())
    bench.run_until(12)
    assert len(bench.sink.points("run")) == 1


def test_expedited_points_are_sent_at_once_and_the_wait_ends_with_the_delivery(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue, 3)
    backlog = bench.sender.expedite([queue])
    assert bench.sender.send_next()
    assert bench.sender.wait(backlog, Deadline(bench.clock.seconds + 5))


def test_an_empty_backlog_is_not_waited_for(bench: Bench) -> None:
    assert bench.sender.wait(bench.sender.expedite(), Deadline(bench.clock.seconds + 5))


def test_a_wait_ends_at_once_if_the_next_attempt_comes_too_late(bench: Bench) -> None:
    queue = bench.queue()
    bench.sink.down = True
    bench.put(queue)
    bench.run_until(60)
    backlog = bench.sender.expedite([queue])
    assert bench.sender.send_next(), "the one attempt that a flush is worth"
    assert not bench.sender.wait(backlog, Deadline(bench.clock.seconds + 5))


def test_many_runs_that_end_in_an_outage_cause_few_requests(bench: Bench) -> None:
    bench.sink.down = True
    queues = [bench.queue(str(n)) for n in range(64)]
    for queue in queues:
        bench.put(queue)
    bench.run_until(30)
    attempts = 0
    for queue in queues:
        bench.sender.expedite([queue])
        while bench.sender.send_next():
            attempts += 1
    assert attempts == 1


def test_points_that_arrive_during_a_request_are_expedited_too(bench: Bench) -> None:
    """A run that ends while its last batch is under way must not wait for the next interval."""
    queue = bench.queue()
    bench.put(queue)
    bench.clock.move(11)
    send = bench.sink.send

    def ends_meanwhile(*batch: object) -> None:
        bench.sink.send = send  # type: ignore[method-assign]
        bench.put(queue)
        bench.sender.expedite([queue])
        send(*batch)  # type: ignore[arg-type]

    bench.sink.send = ends_meanwhile  # type: ignore[method-assign]
    bench.sender.send_next()
    assert bench.sender.send_next()
    assert len(bench.sink.points("run")) == 2


def test_points_expedited_during_their_request_are_not_sent_again(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue)
    bench.clock.move(11)
    send = bench.sink.send

    def expedited_meanwhile(*batch: object) -> None:
        bench.sender.expedite()
        send(*batch)  # type: ignore[arg-type]

    bench.sink.send = expedited_meanwhile  # type: ignore[method-assign]
    assert bench.sender.send_next()
    assert not bench.sender.send_next()
    assert [len(batch.points) for batch in bench.sink.batches] == [1]


def test_a_single_failing_run_does_not_delay_its_end(bench: Bench) -> None:
    """The others are delivered, so the server is not paused, but this run is."""
    queue = bench.queue()
    bench.sink.failures = [unreachable("HTTP 403")] * 20
    bench.put(queue)
    bench.run_until(60)
    bench.sink.failures = bench.sink.failures[:1]
    backlog = bench.sender.expedite([queue])
    assert bench.sender.send_next()
    other = bench.queue("other")
    bench.put(other)
    bench.sender.expedite([other])
    bench.clock.move(2)
    bench.sender._schedule.answered()
    assert bench.sender.send_next()
    assert bench.sink.points("other")
    assert not bench.sender.wait(backlog, Deadline(bench.clock.seconds + 5))


def test_a_closed_queue_is_removed_when_it_is_empty(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue)
    bench.sender.close(queue)
    assert list(bench.sender._schedule) == [queue]
    bench.run_until(11)
    assert not bench.sender._schedule


def test_points_that_arrive_after_closing_are_delivered(bench: Bench) -> None:
    queue = bench.queue()
    bench.sender.close(queue)
    bench.put(queue)
    bench.run_until(11)
    assert len(bench.sink.points("run")) == 1
    assert not bench.sender._schedule


def test_no_lock_is_held_during_a_request(bench: Bench) -> None:
    queue = bench.queue()
    bench.put(queue)
    bench.clock.move(11)
    appended = []

    def blocked(*_: object) -> None:
        other = threading.Thread(target=lambda: (bench.put(queue), bench.sender.counts(), appended.append(1)))
        other.start()
        other.join(timeout=60)

    bench.sink.send = blocked  # type: ignore[method-assign]
    bench.sender.send_next()
    assert appended == [1]


def test_a_server_limited_to_two_hundred_points_gets_smaller_batches(bench: Bench) -> None:
    send = bench.sink.send

    def azure(run_id: str, points: list[Point], *rest: object) -> None:
        if len(points) > 200:
            raise too_large("HTTP 400")
        send(run_id, points, *rest)  # type: ignore[arg-type]

    bench.sink.send = azure  # type: ignore[method-assign]
    bench.put(bench.queue(), 2500)
    bench.run_until(11)
    assert [point.value for point in bench.sink.points("run")] == list(range(2500))
    assert {len(batch.points) for batch in bench.sink.batches} == {125}
    assert bench.sender.counts().last_error is None


def test_a_single_point_that_is_too_large_is_given_up_and_counted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    send = bench.sink.send

    def picky(run_id: str, points: list[Point], *rest: object) -> None:
        if any(point.value == 77 for point in points):
            raise too_large("HTTP 413")
        send(run_id, points, *rest)  # type: ignore[arg-type]

    bench.sink.send = picky  # type: ignore[method-assign]
    bench.put(bench.queue(), 300)
    bench.run_until(40)
    assert {point.value for point in bench.sink.points("run")} == {n for n in range(300) if n != 77}
    counts = bench.sender.counts()
    assert (counts.delivered, counts.pending, counts.dropped) == (299, 0, 1)
    assert {"sysmetrics.points_dropped": "1"} in [batch.tags for batch in bench.sink.batches]
    assert "does not accept system/x: HTTP 413" in caplog.text


def test_too_large_tags_do_not_lose_the_points(bench: Bench) -> None:
    queue = bench.queue()
    send = bench.sink.send

    def picky(run_id: str, points: list[Point], steps: list[int], tags: dict[str, str]) -> None:
        if tags:
            raise too_large("HTTP 400")
        send(run_id, points, steps, tags)

    bench.sink.send = picky  # type: ignore[method-assign]
    bench.put(queue, 5)
    bench.sender.append(queue, tags={"sys.long": "x" * 9000})
    bench.run_until(11)
    assert len(bench.sink.points("run")) == 5
    assert queue.empty


def test_retry_after_is_respected_even_when_a_run_ends(bench: Bench) -> None:
    queue = bench.queue()
    bench.sink.failures = [unreachable("HTTP 429", retry_after=40)]
    bench.put(queue)
    bench.run_until(20)
    backlog = bench.sender.expedite([queue])
    assert not bench.sender.send_next()
    assert not bench.sender.wait(backlog, Deadline(bench.clock.seconds + 5))
    bench.run_until(55)
    assert len(bench.sink.points("run")) == 1


def test_wrong_credentials_are_one_warning_with_a_remedy_and_one_try_per_minute(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.sink.failures = [not_allowed("HTTP 401")] * 5
    bench.put(bench.queue())
    bench.run_until(280)
    assert len(bench.sink.failures) == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "set MLFLOW_TRACKING_USERNAME" in caplog.text
    bench.run_until(330)
    assert len(bench.sink.points("run")) == 1


def test_orphans_are_sent_after_live_runs(bench: Bench) -> None:
    left, live = bench.queue("left"), bench.queue("live")
    left.replayed = True
    left.put([Point("system/x", 1.0, STARTED_AT)])
    bench.sender.adopt(left)
    bench.put(live)
    bench.sender.expedite([live])
    assert bench.sender.send_next()
    assert bench.sink.points("live")
    assert not bench.sink.points("left")


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_points_of_a_send_that_was_broken_off_are_sent_again(bench: Bench, error: BaseException) -> None:
    """A plugin may call `sys.exit`, another thread may set an exception in ours: the points are not forgotten."""
    bench.sink.failures.append(error)  # type: ignore[arg-type]
    queue = bench.queue()
    bench.put(queue, 3)
    bench.sender.expedite([queue])
    with pytest.raises(type(error)):
        bench.sender.send_next()
    assert bench.sender.counts().pending == 3
    bench.run_until(120)
    assert len(bench.sink.points("run")) == 3


def test_a_thread_that_ends_closes_the_connection_and_the_next_opens_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "_LINGER_SECONDS", 0.0)
    bench = Bench()
    bench.sender.thread_name = "sender-of-a-test"
    for times in (1, 2):
        queue = bench.queue(str(times))
        bench.sender.open()
        bench.put(queue)
        loop = bench.sender.loop
        bench.sender.end(queue)
        bench.sender.close(queue)
        assert loop is not None
        assert loop._thread is not None
        loop._thread.join(LONG_SECONDS)
        assert (bench.sink.closed, bench.opened) == (times, times)


class Flow:
    """A thousand runs at a point of each of two series a second, by the clock of a memory budget."""

    def __init__(self) -> None:
        self.memory = MemoryBudget(buffered=20, unsaved=200, in_flight=10_000)
        self.now = 100.0

    def second(self, points: int) -> None:
        self.memory.arrived(points, self.now)
        self.memory.add(points)
        self.now += 1


def test_what_is_on_its_way_to_a_server_that_takes_it_stays_in_memory() -> None:
    flow = Flow()
    for _ in range(30):
        flow.second(100)
        assert flow.memory.excess(failing=False) == flow.memory.hard_excess(failing=False) == 0
        if flow.now % 10 == 0:
            flow.memory.add(-1000)
            assert not flow.memory.is_used_up(failing=False)


def test_a_server_that_fails_has_the_small_bounds_at_once() -> None:
    flow = Flow()
    for _ in range(10):
        flow.second(100)
    assert flow.memory.is_used_up(failing=True)
    assert flow.memory.excess(failing=True) == flow.memory.hard_excess(failing=True) == 800


def test_a_server_that_takes_nothing_and_does_not_fail_is_bounded_too() -> None:
    flow = Flow()
    for _ in range(60):
        flow.second(100)
    assert flow.memory.is_used_up(failing=False)
    assert flow.memory.excess(failing=False) >= 2900  # of 6000; 3000 may be on their way


def test_a_burst_is_forgotten() -> None:
    flow = Flow()
    flow.second(5000)
    flow.now += 40
    flow.second(100)
    assert flow.memory.excess(failing=False) == 4900


def test_the_number_of_points_on_their_way_is_bounded() -> None:
    flow = Flow()
    flow.second(12_000)
    assert flow.memory.excess(failing=False) == 2000
