"""The writers of a SystemMetricsLogger, one per run."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mlflow_sysmetrics.training import system_metrics

LONG_SECONDS = 30.0


class Writer:
    """Records whether it was closed."""

    closed = False

    def close(self, timeout: float | None) -> bool:
        del timeout
        self.closed = True
        return True


def test_a_signal_handler_that_logs_while_a_writer_is_opened_does_not_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Writer] = []
    found: list[Any] = []
    writers = system_metrics._Writers(None)

    def open_writer(run_id: str, *, tracking_uri: str | None) -> Writer:
        del tracking_uri
        writer = Writer()
        opened.append(writer)
        if len(opened) == 1:
            found.append(writers.of(run_id))  # as a signal handler that runs at this moment
        return writer

    monkeypatch.setattr(system_metrics, "open_writer", open_writer)
    thread = threading.Thread(target=lambda: found.append(writers.of("run")), daemon=True)
    thread.start()
    thread.join(LONG_SECONDS)
    assert found == [opened[1], opened[1]]
    assert [writer.closed for writer in opened] == [True, False]
