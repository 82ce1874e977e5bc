"""How long a program's greenlets wait under gevent or eventlet, with and without this package.

    python benchmarks/greenlets.py [--rounds 10] [--seconds 3] [--runs 4]

A greenlet sleeps a millisecond again and again; a gap of over ten is a starvation. Each program starts and
ends a few runs, and both sides take turns, each in fresh interpreters. On a busy machine most gaps are those
of the scheduler, so each gap is attributed, in this order, to

- the machine: without the time that the thread was runnable and had no CPU, it is no starvation;
- a full garbage collection in it, which takes as long as the program's heap is large;
- the greenlets: the thread computed; all of the gap counts as ours if a greenlet that has a frame of this
  package on its stack computed for five milliseconds or more;
- another thread: it held the interpreter's lock, or the system call of a greenlet blocked.

Linux only, for `schedstat`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_GAP_SECONDS = 0.010
_COMPUTED_SECONDS = 0.005
_PACKAGE = f"{os.sep}mlflow_sysmetrics{os.sep}"
_PHASES = ("first start", "first run", "first end", "later start", "later run", "later end")
_CAUSES = ("machine", "collection", "greenlets", "ours", "another thread")
_SIDES = {"without": {"MLFLOW_RUN_CONTEXT_PROVIDER": "none"}, "with": {}}


class Readings:
    """What the main thread has used so far, in seconds."""

    def __init__(self) -> None:
        self._schedstat = os.open(f"/proc/self/task/{os.getpid()}/schedstat", os.O_RDONLY)
        self._collected = self._began = 0.0
        gc.callbacks.append(self._collection)

    def _collection(self, phase: str, of: dict[str, int]) -> None:
        if of["generation"] == 2:
            now = time.perf_counter()
            if phase == "start":
                self._began = now
            else:
                self._collected += now - self._began

    def now(self) -> tuple[float, float, float, float]:
        """Returns the time, CPU time, time of waiting for a CPU, and time of full collections."""
        _, delay, _ = os.pread(self._schedstat, 100, 0).split()
        return time.perf_counter(), time.thread_time(), int(delay) / 1e9, self._collected


class Program:
    """A patched program that measures itself: the gaps of its ticking greenlet by phase and cause."""

    def __init__(self, sleep: Any) -> None:
        self._sleep = sleep
        self._readings = Readings()
        self._last_switch = time.thread_time()
        self._ours = 0.0  # longest computation of a greenlet of ours since the last tick
        self.phase = "before"
        self.ticks: Counter[str] = Counter()
        self.gaps: list[tuple[str, str, float]] = []

    def switched(self, _event: str, greenlets: tuple[Any, Any]) -> None:
        """Called at each switch of greenlets, with the one that ran and the one that will."""
        now = time.thread_time()
        computed = now - self._last_switch
        if computed >= _COMPUTED_SECONDS and any(
            _PACKAGE in frame.f_code.co_filename for frame in _stack(greenlets[0].gr_frame)
        ):
            self._ours = max(self._ours, computed)
        self._last_switch = now

    def tick(self) -> None:
        """The ticking greenlet."""
        last = self._readings.now()
        while True:
            self._sleep(0.001)
            now = self._readings.now()
            gap, computed, delayed, collected = (b - a for a, b in zip(last, now, strict=True))
            self.ticks[self.phase] += 1
            if gap > _GAP_SECONDS:
                self.gaps.append((self.phase, self._cause(gap, computed, delayed, collected), gap))
            self._ours = 0.0
            last = now

    def _cause(self, gap: float, computed: float, delayed: float, collected: float) -> str:
        if gap - delayed <= _GAP_SECONDS:
            return "machine"
        if gap - delayed - collected <= _GAP_SECONDS:
            return "collection"
        if computed >= _COMPUTED_SECONDS:
            return "ours" if self._ours else "greenlets"
        return "another thread"


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def measured(kind: str, seconds: float, runs: int) -> dict[str, Any]:
    """Patches this program, does some runs, and returns its gaps."""
    if kind == "gevent":
        from gevent import monkey, sleep, spawn

        monkey.patch_all()
    else:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import eventlet
            from eventlet import sleep, spawn

            eventlet.monkey_patch()
    import greenlet
    import mlflow

    program = Program(sleep)
    greenlet.settrace(program.switched)
    spawn(program.tick)
    sleep(0.1)
    for number in range(runs):
        which = "later" if number else "first"
        program.phase = f"{which} start"
        with mlflow.start_run():
            program.phase = f"{which} run"
            sleep(seconds)
            program.phase = f"{which} end"
        program.phase = "between"
        sleep(0.05)
    return {"ticks": program.ticks, "gaps": program.gaps}


def compared(kind: str, rounds: int, seconds: float, runs: int) -> str:
    """Measures both sides in turn and returns a table."""
    from counting_server import counting_server
    from tables import Table

    found: dict[str, list[dict[str, Any]]] = {side: [] for side in _SIDES}
    with counting_server() as server, tempfile.TemporaryDirectory() as spool:
        for number in range(rounds):
            for side in _SIDES if number % 2 else reversed(_SIDES):
                environ = {
                    name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
                }
                environ |= {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_SYSMETRICS_SPOOL_DIR": spool}
                command = [sys.executable, __file__, "--measure", kind]
                command += ["--seconds", str(seconds), "--runs", str(runs)]
                shown = subprocess.run(
                    command, env={**environ, **_SIDES[side]}, capture_output=True, text=True, check=True
                ).stdout
                found[side].append(json.loads(shown.splitlines()[-1]))
    return str(
        Table(
            f"Gaps over {_GAP_SECONDS * 1000:g} ms of a greenlet under {kind}, {rounds} programs a side",
            ("phase", "side", "ticks", *_CAUSES, "longest but for the machine's, ms"),
            list(_rows(found)),
        )
    )


def _rows(found: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    for phase in _PHASES:
        for side, programs in found.items():
            gaps = [(cause, gap) for one in programs for of, cause, gap in one["gaps"] if of == phase]
            counts = Counter(cause for cause, _ in gaps)
            longest = max((gap for cause, gap in gaps if cause != "machine"), default=0.0)
            ticks = sum(one["ticks"].get(phase, 0) for one in programs)
            yield phase, side, str(ticks), *(str(counts[one]) for one in _CAUSES), f"{longest * 1000:.0f}"


def main() -> None:
    """Prints a table for gevent and one for eventlet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", choices=("gevent", "eventlet"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("gevent", "eventlet"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run")
    parser.add_argument("--runs", type=int, default=4, help="runs of a program")
    options = parser.parse_args()
    if options.measure:
        print("\n" + json.dumps(measured(options.measure, options.seconds, options.runs)))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    for kind in (options.only,) if options.only else ("gevent", "eventlet"):
        print(compared(kind, options.rounds, options.seconds, options.runs))


if __name__ == "__main__":
    main()
