"""Alerts reach a command or a webhook from a thread of their own, and never stop the caller."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.summary import alerts as module
from mlflow_sysmetrics.summary.alerts import Alert, AlertSender
from watching import LONG_SECONDS, eventually

ALERT = Alert("0123", "gpu-unused", "GPU 0 did nothing.", "node_0", 1_790_000_000_000)


class Webhook(http.server.BaseHTTPRequestHandler):
    """Takes alerts; the first requests fail with the statuses of the server's list."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = server.statuses.pop(0) if server.statuses else 200
        if status == 200:
            server.taken.append(json.loads(body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture
def webhook() -> Iterator[Any]:
    with http.server.HTTPServer(("127.0.0.1", 0), Webhook) as server:
        found: Any = server
        found.taken, found.statuses = [], []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def url(webhook: Any) -> str:
    return f"http://127.0.0.1:{webhook.server_port}/hooks/secret"


def test_a_webhook_gets_text_and_fields(webhook: Any) -> None:
    AlertSender().put(url(webhook), ALERT)
    eventually(lambda: webhook.taken)
    (found,) = webhook.taken
    assert found["text"] == "MLflow run 0123: gpu-unused: GPU 0 did nothing."
    assert (found["run_id"], found["verdict"], found["node"]) == ("0123", "gpu-unused", "node_0")


def test_a_webhook_that_fails_is_tried_again(webhook: Any) -> None:
    webhook.statuses = [503, 500]
    AlertSender(pause=lambda _: None).put(url(webhook), ALERT)
    eventually(lambda: webhook.taken)


def test_one_that_goes_on_failing_is_named_without_its_address(
    webhook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.statuses = [500] * 3
    with caplog.at_level(logging.WARNING):
        AlertSender(pause=lambda _: None).put(url(webhook), ALERT)
        eventually(lambda: caplog.messages)
    assert webhook.taken == []
    assert "could not be passed on: HTTPError" in caplog.text
    assert "secret" not in caplog.text


def test_a_command_gets_the_line_and_the_fields(tmp_path: Path) -> None:
    script = tmp_path / "notify.sh"
    script.write_text(f'#!/bin/sh\nprintf "%s|%s|%s" "$1" "$2" "$SYSMETRICS_RUN_ID" > {tmp_path}/said\n')
    script.chmod(0o755)
    AlertSender().put(f"cmd:{script} 'to whom'", ALERT)
    said = tmp_path / "said"
    eventually(lambda: said.exists() and said.read_text())
    assert said.read_text() == f"to whom|{ALERT.line}|0123"


def test_a_command_that_does_not_exist_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        AlertSender(pause=lambda _: None).put("cmd:/no/such/program", ALERT)
        eventually(lambda: "could not be passed on: program is not installed" in caplog.text)


def test_a_target_that_hangs_does_not_stop_the_caller_and_waiting_alerts_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs, taken = threading.Event(), []

    def hang(target: str, alert: Alert) -> None:
        assert hangs.wait(LONG_SECONDS)
        taken.append((target, alert))

    monkeypatch.setattr(module, "_post", hang)
    sender = AlertSender()
    for number in range(100):
        sender.put(f"https://{number}", ALERT)
    hangs.set()
    eventually(lambda: taken and taken[-1][0] == "https://99")
    assert len(taken) <= 34


def test_the_log_needs_no_thread() -> None:
    sender = AlertSender()
    sender.put("log", ALERT)
    assert not sender._waiting
