"""A sampler whose thread is the test, on a simulated machine, with a fake server: hours pass in a second."""

from __future__ import annotations

from collections.abc import Iterator

from fakes import STARTED_AT, FakeClock, FakeSink, Scripted
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Kind, Sample
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.summary.alerts import Alert
from mlflow_sysmetrics.summary.announcer import announcer_of
from simulated_ticks import Tick

#: What is read when a point is due; all else is read at each tick.
RATES = ("cpu_utilization_percentage", "cpu_throttled_percentage", "process_cpu_percentage", "io_pressure")
TOTALS = ("_watt_hours", "_errors", "_rows", "_kills")
BEGAN = 100.0  # of the fake clock


class Alerts:
    """Takes alerts in the place of an `AlertSender`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Alert]] = []

    def put(self, target: str, alert: Alert) -> None:
        self.taken.append((target, alert))


class SimulatedMachine:
    """The sampler and the sender of one process.

    Args:
        tick: what the machine reports at a second.
        interval: seconds between two ticks.
    """

    def __init__(self, tick: Tick, interval: float = 10) -> None:
        self.clock = FakeClock()
        self.sink = FakeSink()
        self.alerts = Alerts()
        self.interval = interval
        self.tick = tick
        machine = self

        class Levels(Scripted):
            def collect(self, now: float) -> Iterator[Sample]:
                yield from machine._samples(now, rates=False)

        class Rates(Scripted):
            cumulative = True
            last: float | None = None

            def collect(self, now: float) -> Iterator[Sample]:
                if self.last is not None and now > self.last:
                    for key, _, value, _ in machine._samples(now, rates=True):
                        yield Sample(key, Kind.RATE, value, now - self.last)
                self.last = now

        host = Host()
        probes = [Probe(one, host, transparent=True) for one in (Levels, Rates)]
        self.sampler = Sampler(probes, self.clock)
        self.sender = Sender("uri", lambda _: self.sink, self.clock)

    @property
    def second(self) -> float:
        """Seconds since the beginning."""
        return self.clock.seconds - BEGAN

    def start(self, run_id: str = "run", **settings: object) -> RunSeries:
        """Attaches a run."""
        given: dict[str, object] = {
            "sampling_interval": self.interval,
            "samples_before_logging": max(round(10 / self.interval), 1),
            "resolution": "constant",
            **settings,
        }
        chosen = Settings(**given)  # type: ignore[arg-type]
        announcer = announcer_of(run_id, chosen, self.sampler.history, self.alerts)  # type: ignore[arg-type]
        queue = RunQueue(run_id, STARTED_AT, 10.0)
        series = RunSeries(("uri", run_id), chosen, Channel(self.sender, queue), announcer=announcer)
        self.sampler.add(series)
        self.sampler.run_due()
        return series

    def end(self, series: RunSeries) -> None:
        """Detaches a run, and sends its last points."""
        self.sampler.remove(series)
        self.sampler.run_due()
        self.send()

    def pass_time(self, seconds: float) -> None:
        """Lets time pass: ticks are taken and points sent when they are due."""
        ends = self.clock.seconds + seconds
        while True:
            due_at = self.sampler._due_at
            if due_at > ends:
                break
            self.clock.seconds = max(self.clock.seconds, due_at)
            self.sampler.run_due()
            self.send()
        self.clock.seconds = ends

    def send(self) -> None:
        """Sends what is due."""
        while self.sender.send_next():
            pass

    def last(self, key: str, run_id: str = "run") -> float | None:
        """Returns the newest value of a metric on the server."""
        values = [point.value for point in self.sink.points(run_id) if point.key == key]
        return values[-1] if values else None

    def _samples(self, now: float, *, rates: bool) -> Iterator[Sample]:
        for key, value in self.tick(int(now - BEGAN)).items():
            if key.startswith(RATES) == rates:
                kind = Kind.EVENTS if key.endswith(TOTALS) else Kind.GAUGE
                yield Sample(key, kind, value)
