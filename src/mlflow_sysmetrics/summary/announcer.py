"""What a run is told about itself: metrics and tags, at each refresh and at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.summary.alerts import Alert, AlertSender
from mlflow_sysmetrics.summary.description import NOTE_TAG, block, tag_line, verdict_line, with_block
from mlflow_sysmetrics.summary.live_run import LiveRun, Reading
from mlflow_sysmetrics.summary.rules import INTERACTIVE_SECONDS
from mlflow_sysmetrics.summary.summary import (
    ALERT_TAG,
    PREFIX,
    VERDICT_TAG,
    Surroundings,
    figures_of_metrics,
    figures_of_parts,
)
from mlflow_sysmetrics.summary.tick_history import TickHistory

#: Minutes without a metric of the program and without any work of a GPU after which a run makes no progress.
STILL_MINUTES = 15
NO_PROGRESS = "no-progress"
_DIGITS = 6  # after the point: a share of some GPU-minutes in hours has three zeros there
_MILLISECONDS = 1000
_FACTS = "mlflow_sysmetrics.facts.discovery"

_logger = Log()


class RunOnServer(Protocol):
    """What the server says about a run at the moment of a send."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""

    @property
    def last_metric_at(self) -> int | None:
        """Milliseconds since 1970 of the newest metric that is not a system metric; None without one."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is to be sent with the next points.

    Attributes:
        metrics: by key.
        tags: that depend on nothing else.
        late_tags: returns tags that depend on what the run has; called just before they are sent, by the
            sender, each time it tries. None if there are none.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    late_tags: Callable[[RunOnServer], dict[str, str]] | None = None


class Announcer:
    """Says what is to be told to one run. Called by the sampler, but for `_late_tags`.

    Args:
        run_id: the run.
        settings: its settings.
        history: what the process measures.
        alerts: takes alerts.

    Attributes:
        speaks: whether this node writes the run's tags, not only its own metrics.
    """

    def __init__(self, run_id: str, settings: Settings, history: TickHistory, alerts: AlertSender) -> None:
        self.speaks = True
        self._run_id = run_id
        self._settings = settings
        self._history = history
        self._alerts = alerts
        self._live: LiveRun | None = None
        self._before: Mapping[str, float] = {}
        self._told: dict[str, float] = {}
        self._verdict: str | None = None
        self._known: set[str] = set()  # causes that were reported
        self._alert: str | None = None
        self._where = f"{PREFIX}{settings.node_id}/" if settings.node_id else PREFIX

    def continue_from(self, metrics: Mapping[str, float]) -> None:
        """Adds the figures that a resumed run has already, of this node.

        Args:
            metrics: the newest value of each metric of the run.
        """
        self._before = figures_of_metrics(
            {key: value for key, value in metrics.items() if key.rpartition("/")[0] == self._where[:-1]}
        )

    def begin(self) -> None:
        """Begins with the tick that was just taken."""
        if self._live is None:
            self._live = LiveRun(self._history, self._settings.node_id or "", surroundings)

    def refresh(self, timestamp: int, *, coalesces: bool) -> Announcement | None:
        """Returns what is new if a refresh is due.

        Args:
            timestamp: now, in milliseconds since 1970.
            coalesces: whether something is sent anyway.
        """
        if self._live is None or not self._live.is_due(coalesces=coalesces):
            return None
        reading = self._live.refresh()
        self._report(reading, timestamp)
        return self._announce(reading, timestamp)

    def end(self, timestamp: int) -> Announcement | None:
        """Returns what is to be said at the end of the run. Safe to call again."""
        live, self._live = self._live, None
        reading = None if live is None else live.end()
        return None if reading is None else self._announce(reading, timestamp, ends=True)

    def give_up(self) -> None:
        """Says nothing more, because something has failed."""
        live, self._live = self._live, None
        if live is not None:
            live.forget()

    def _announce(self, reading: Reading, timestamp: int, *, ends: bool = False) -> Announcement:
        figures = reading.summary.figures()
        if self._before:
            figures = figures_of_parts(self._before, figures)
        metrics = {f"{self._where}{name}": round(value, _DIGITS) for name, value in figures.items()}
        new = {key: value for key, value in metrics.items() if self._told.get(key) != value}
        self._told |= new
        if not (self.speaks and self._settings.tags):
            return Announcement(new)
        tags = {}
        if reading.verdicts or self._verdict is not None:  # "none any more" is news, "none yet" is not
            self._verdict = verdict_line(reading.verdicts)
            tags[VERDICT_TAG] = self._verdict
        if self._alert is not None:
            tags[ALERT_TAG] = self._alert
        return Announcement(new, tags, self._late(reading, figures, timestamp, ends=ends))

    def _late(
        self, reading: Reading, figures: Mapping[str, float], timestamp: int, *, ends: bool
    ) -> Callable[[RunOnServer], dict[str, str]] | None:
        """Returns what makes the tags for which the run has to be read; None if there are none."""
        described = reading.verdicts and self._settings.description
        new = block(reading.verdicts, figures, self._run_id) if described else None
        patience = INTERACTIVE_SECONDS if reading.summary.surroundings.interactive else 60.0 * STILL_MINUTES
        may_be_stuck = (
            not ends
            and reading.gpus_are_idle
            and reading.summary.seconds >= patience
            and NO_PROGRESS not in self._known
        )
        if new is None and not may_be_stuck:
            return None

        def late_tags(run: RunOnServer) -> dict[str, str]:
            tags = {}
            text = None if new is None else with_block(run.tags.get(NOTE_TAG, ""), new)
            if text is not None and text != run.tags.get(NOTE_TAG):
                tags[NOTE_TAG] = text
            if may_be_stuck:
                tags |= self._look_for_progress(run.last_metric_at, timestamp, patience)
            return tags

        return late_tags

    def _look_for_progress(self, last: int | None, now: int, patience: float) -> dict[str, str]:
        """Returns the tag of a run that makes no progress, if so; called by the sender."""
        still = 0.0 if last is None else (now - last) / _MILLISECONDS
        if still < patience:  # a program that never logs one, such as a server, may wait for requests
            return {}
        text = (
            f"The GPUs did nothing for {STILL_MINUTES} min, and the last metric is {still / 60:.0f} min old; "
            "a training logs one every few minutes. It may wait for data, a lock or another rank: look at "
            "its stack with py-spy dump."
        )
        self._tell(NO_PROGRESS, text, now)
        return {} if self._alert is None else {ALERT_TAG: self._alert}

    def _report(self, reading: Reading, timestamp: int) -> None:
        for verdict in reading.recent:
            self._tell(verdict.name, verdict.text, timestamp)

    def _tell(self, name: str, text: str, timestamp: int) -> None:
        """Reports a cause, once per run."""
        if name in self._known:
            return
        self._known.add(name)
        alert = Alert(self._run_id, name, text, self._settings.node_id or "", timestamp)
        at = datetime.fromtimestamp(timestamp / _MILLISECONDS, timezone.utc)
        self._alert = f"{at:%Y-%m-%d %H:%M} UTC {tag_line(alert.name, alert.text)}"
        if self._settings.alert != "off":
            _logger.warning("mlflow-sysmetrics: run %s: %s: %s", self._run_id, name, text)
            self._alerts.put(self._settings.alert, alert)


def announcer_of(
    run_id: str, settings: Settings, history: TickHistory, alerts: AlertSender
) -> Announcer | None:
    """Returns the announcer of a run; None if the user wants no summaries."""
    return Announcer(run_id, settings, history, alerts) if settings.summary else None


def surroundings() -> Surroundings:
    """Returns what is known here about how this program is run; nothing if the facts are not known yet."""
    facts = sys.modules.get(_FACTS)  # not imported for this: that takes tens of milliseconds
    tags = dict(facts.host_facts().tags(wait_seconds=0)) if facts is not None else {}
    if "ipykernel" in sys.modules:
        tags["mlflow.source.name"] = "ipykernel"
    return Surroundings.of_tags(tags)
