"""A fresh interpreter for a measurement: reads a JSON command per line, writes a JSON result per line."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import default_tick
import gpu
import gpu_steps
import idle
import interference
import mlflow
import tick_cost


def cpu_seconds() -> float:
    """Returns the CPU time of this process, all its threads, and the commands it has started."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def measured(action: Callable[[], None]) -> dict[str, float]:
    """Runs an action and returns its CPU and wall time."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    action()
    return {"cpu_seconds": cpu_seconds() - cpu, "wall_seconds": time.perf_counter() - wall}


class ConcurrentRuns:
    """Concurrent runs, each started by `mlflow.start_run` in a separate thread."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._started: queue.Queue[BaseException | None] = queue.Queue()
        self._end = threading.Event()

    def start(self, runs: int) -> dict[str, float]:
        """Starts all runs; returns once the last one is active."""
        self._threads = [threading.Thread(target=self._run) for _ in range(runs)]
        return measured(self._start)

    def watch(self, seconds: float) -> dict[str, float]:
        """Sleeps; returns the CPU and wall time, and the number of threads other than those of the runs."""
        spent = measured(lambda: time.sleep(seconds))
        own = {*self._threads, threading.main_thread()}
        return {**spent, "threads": sum(thread not in own for thread in threading.enumerate())}

    def end(self) -> dict[str, float]:
        """Ends all runs at once; returns once the last one has ended."""
        return measured(self._finish)

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            if (error := self._started.get()) is not None:
                raise RuntimeError("a run could not be started") from error

    def _run(self) -> None:
        try:
            mlflow.start_run()
        except Exception as error:  # noqa: BLE001 - passed to the main thread, which raises it
            self._started.put(error)
            return
        self._started.put(None)
        self._end.wait()
        mlflow.end_run()

    def _finish(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def one_run(body_seconds: float) -> dict[str, Any]:
    """Does one run; returns its id and the duration of its start and its end."""
    began = time.perf_counter()
    run = mlflow.start_run()
    started = time.perf_counter()
    time.sleep(body_seconds)
    ending = time.perf_counter()
    mlflow.end_run()
    ended = time.perf_counter()
    return {"run_id": run.info.run_id, "start_seconds": started - began, "end_seconds": ended - ending}


def main() -> None:
    """Runs commands until standard input closes."""
    # MLflow prints "View run ... at" to standard output, which is reserved for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runs = ConcurrentRuns()
    commands: dict[str, Callable[..., Any]] = {
        "start": runs.start,
        "watch": runs.watch,
        "end": runs.end,
        "one_run": one_run,
        "ticks": tick_cost.ticks,
        "default_ticks": default_tick.default_ticks,
        "gpu_ticks": gpu.gpu_ticks,
        "idle": idle.idle,
        "interference": interference.interference,
        "gpu_steps": gpu_steps.gpu_steps,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(commands[command.pop("do")](**command)), file=answers, flush=True)
