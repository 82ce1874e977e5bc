"""Trainers killed with SIGKILL, repeatedly, some of them while the server is unreachable."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from chaos_check import assert_all_on_server
from chaos_nursery import Program
from chaos_proxy import LOG_BATCH, Proxy
from chaos_server import TrackingServer
from chaos_starter import Starter, journals

pytest_plugins = ["chaos_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are forked here")

# `nox -s slow` sets CHAOS_TRAINERS=200; another CHAOS_SEED chooses other moments.
TRAINERS = int(os.environ.get("CHAOS_TRAINERS", "25"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
AT_ONCE = 4  # two cores cannot sample ten times a second for many more
TRAINING = """
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    tell("attached")
    time.sleep(600)
"""
TROUBLES = ("none", "none", "none", "500", "refuse", "lose-answer", "hang", "reset-mid-body")


@pytest.mark.slow
def test_one_sync_delivers_all_points_of_trainers_killed_at_random_moments(
    start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    """Later trainers send the points that earlier ones left, and may be killed while sending."""
    chosen = random.Random(SEED)
    doomed: list[tuple[float, Program]] = []
    for _ in range(TRAINERS):
        if len(doomed) == AT_ONCE:
            kill_first(doomed)
            proxy.trouble(chosen.choice(TROUBLES))
        program = start(TRAINING, RUN=tracking.new_run(), CHAOS_URL=proxy.url)
        if chosen.random() < 0.8:  # the others may be killed before they start
            program.await_word("attached")
        doomed.append((time.monotonic() + chosen.uniform(0, 1.5), program))
    while doomed:
        kill_first(doomed)
    proxy.trouble("none")
    start.sync()
    assert assert_all_on_server(tracking, start.sides) > 0


def kill_first(doomed: list[tuple[float, Program]]) -> None:
    """Kills the program with the earliest deadline, at that time."""
    doomed.sort(key=lambda one: one[0])
    moment, program = doomed.pop(0)
    time.sleep(max(moment - time.monotonic(), 0))
    program.kill()
    assert program.wait() == -signal.SIGKILL


def test_five_syncs_at_once_send_each_point_once(
    start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    with proxy.troubled("refuse"):
        programs = [start(TRAINING, RUN=tracking.new_run(), CHAOS_URL=proxy.url) for _ in range(4)]
        for program in programs:
            program.await_sample()
        time.sleep(0.5)
        for program in programs:
            program.kill()
            program.wait()
    syncs = [start.begin_sync() for _ in range(5)]
    assert [sync.wait() for sync in syncs] == [0] * 5, [sync.stderr for sync in syncs]
    assert assert_all_on_server(tracking, start.sides) > 0
    sent = Counter(point for request in proxy.requests for point in points_of(request.path, request.body))
    assert set(sent.values()) == {1}


def points_of(path: str, body: bytes) -> list[tuple[str, str, int]]:
    """Returns run, key and timestamp of every point in a request."""
    if path != LOG_BATCH:
        return []
    asked = json.loads(body)
    return [(asked["run_id"], one["key"], one["timestamp"]) for one in asked.get("metrics", [])]


def test_a_sync_leaves_the_journal_of_a_running_program(
    start: Starter, tracking: TrackingServer, spool: Path
) -> None:
    program = start(TRAINING, RUN=tracking.new_run(), CHAOS_URL=tracking.url)
    program.await_sample()
    before = journals(spool)
    start.sync()
    assert journals(spool) == before
    program.kill()
    program.wait()
    start.sync()
    assert assert_all_on_server(tracking, start.sides) > 0
