"""Passes alerts on to a command or a webhook, in a thread of its own.

An alert is tried three times and not kept on disk: the log and the tag of the run have it, too. At most 32
wait; while there are more, the oldest is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.native import Event, Lock
from mlflow_sysmetrics.runtime.threads import start_thread

THREAD_NAME = "sysmetrics-alerts"
COMMAND = "cmd:"
TIMEOUT_SECONDS = 10.0
_PAUSES = (2.0, 10.0)  # seconds before the second and the third attempt
_MOST_WAITING = 32

_logger = Log()


@dataclass(frozen=True, slots=True)
class Alert:
    """A cause that was found in a run.

    Attributes:
        run_id: the run.
        name: of the rule.
        text: the number, what is usual, one cause and one next step.
        node: id of the node; "" for a run without one.
        timestamp: milliseconds since 1970.
    """

    run_id: str
    name: str
    text: str
    node: str
    timestamp: int

    @property
    def line(self) -> str:
        """The alert in one line."""
        return f"MLflow run {self.run_id}: {self.name}: {self.text}"

    def document(self) -> dict[str, object]:
        """Returns it for JSON; Slack, Mattermost and Teams show the text."""
        return {
            "text": self.line,
            "run_id": self.run_id,
            "verdict": self.name,
            "message": self.text,
            "node": self.node,
            "host": platform.node(),
            "timestamp": self.timestamp,
        }


class AlertSender:
    """Sends alerts, one after the other. The thread lives while alerts wait.

    Args:
        pause: waits for some seconds.
    """

    def __init__(self, pause: Callable[[float], object] | None = None) -> None:
        self._lock = Lock()
        self._waiting: deque[tuple[str, Alert]] = deque(maxlen=_MOST_WAITING)
        self._runs = False
        self._pause = pause or Event().wait

    def put(self, target: str, alert: Alert) -> None:
        """Has an alert sent; never blocks.

        Args:
            target: "cmd:" and a command line, or the address of a webhook; else it goes nowhere.
            alert: the alert.
        """
        if not target.startswith((COMMAND, "http")):
            return
        with self._lock:
            self._waiting.append((target, alert))
            starts, self._runs = not self._runs, True
        if starts:
            try:
                start_thread(self._run, THREAD_NAME)
            except ThreadUnavailable:
                self._runs = False

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._runs = False
                    return
                target, alert = self._waiting.popleft()
            with contextlib.suppress(Exception):  # of a log handler
                self._deliver(target, alert)

    def _deliver(self, target: str, alert: Alert) -> None:
        send = _run_command if target.startswith(COMMAND) else _post
        reason = ""
        for pause in (*_PAUSES, None):
            try:
                send(target, alert)
            except (OSError, ValueError, Unavailable) as error:
                # Not its text: a request's may quote the address, which is often a secret.
                reason = str(error) if isinstance(error, Unavailable) else type(error).__name__
            else:
                return
            if pause is not None:
                self._pause(pause)
        _logger.warning(
            "mlflow-sysmetrics: MLFLOW_SYSMETRICS_ALERT: an alert of run %s could not be passed on: %s.",
            alert.run_id,
            reason,
        )


def _run_command(target: str, alert: Alert) -> None:
    import shlex

    from mlflow_sysmetrics.machine.command import Commands  # rarely needed

    variables = {
        f"SYSMETRICS_{key.upper()}": str(value) for key, value in alert.document().items() if key != "text"
    }
    run = Commands({**os.environ, **variables}, budget_seconds=TIMEOUT_SECONDS)
    run([*shlex.split(target.removeprefix(COMMAND)), alert.line])


def _post(target: str, alert: Alert) -> None:
    import urllib.request  # rarely needed

    request = urllib.request.Request(  # noqa: S310 - the setting takes http and https only
        target,
        data=json.dumps(alert.document()).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "mlflow-sysmetrics"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        answer.read(1)
