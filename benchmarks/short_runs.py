"""What the first run of a process costs, and one short run after another, each product at its own defaults.

Each figure comes from fresh interpreters, the sides in turn. Before the first run the program has chosen its
experiment, as most do, so that MLflow has opened its store. The distribution matters as much as the median:
what a product allocates may set off a garbage collection of everything that MLflow has loaded.

Our package is copied twice, once with compiled modules and once without any, as an installer that compiles
nothing leaves it where no `.pyc` files can be written. MLflow and everything else is compiled on both sides.
"""

from __future__ import annotations

import argparse
import compileall
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from counting_server import counting_server
from tables import Table, figure
from variants import BUILT_IN, OURS, Variant

_HERE = Path(__file__).parent
_MILLISECONDS = 1000
_BODY_SECONDS = 0.3
_LONGEST_SECONDS = 300
_FULL_COLLECTION = 2
_OFF = Variant("off", {"MLFLOW_RUN_CONTEXT_PROVIDER": "none"})
_SIDES = (_OFF, BUILT_IN, OURS)

_FIRST_ROWS = {
    "start_run, CPU of the main thread, ms": "start_cpu",
    "start_run, wall, ms": "start_wall",
    "start_run + end_run, CPU of all threads, ms": "all_cpu",
    "full garbage collections in start_run": "full_collections",
    "resident memory added, MB": "resident",
}
_LATER_ROWS = {
    "start_run + end_run, wall, ms": "warm_wall",
    "CPU of all threads per run, ms": "warm_cpu",
}


def measure(rounds: int, runs: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Returns what each fresh interpreter measured, by place (server and state of our modules) and side.

    Args:
        rounds: interpreters of each side.
        runs: short runs in each, after the first.
    """
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as directory, counting_server() as server:
        servers = {"REST": server.url, "sqlite": f"sqlite:///{directory}/mlflow.db"}
        with _packages(Path(directory)) as packages:
            for uri in servers.values():  # compiles MLflow, and creates the tables
                for side in _SIDES:
                    _interpreter(side, uri, Path(directory), packages["compiled"], 0)
            for state, package in packages.items():
                for name, uri in servers.items():
                    of_place = found[f"{name}, our modules {state}"] = {side.name: [] for side in _SIDES}
                    warm = runs if state == "compiled" else 0
                    for number in range(rounds):
                        for side in _SIDES if number % 2 else reversed(_SIDES):
                            of_place[side.name].append(
                                _interpreter(side, uri, Path(directory), package, warm)
                            )
    return found


@contextmanager
def _packages(directory: Path) -> Iterator[dict[str, Path]]:
    """Yields the directories of two copies of our package: with compiled modules, and without."""
    import mlflow_sysmetrics

    packages = {state: directory / state for state in ("compiled", "not compiled")}
    for package in packages.values():
        copy = package / "mlflow_sysmetrics"
        shutil.copytree(
            mlflow_sysmetrics.__path__[0], copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    compileall.compile_dir(packages["compiled"], quiet=1)
    yield packages


def _interpreter(side: Variant, uri: str, directory: Path, package: Path, runs: int) -> dict[str, float]:
    """Returns what one fresh interpreter measures."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environ |= {
        "PYTHONPATH": f"{package}{os.pathsep}{_HERE}",
        # Of what is not compiled where it is installed: once for all sides.
        "PYTHONPYCACHEPREFIX": str(directory / "cache"),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_SYSMETRICS_SPOOL_DIR": str(directory / "spool"),
        "GIT_PYTHON_REFRESH": "quiet",
        **side.environ,
    }
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if package.name != "compiled":
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-c", f"import short_runs; short_runs.worker({runs})"]
    done = subprocess.run(
        command,
        cwd=directory,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def worker(runs: int) -> None:
    """Measures in a fresh interpreter and prints the result."""
    import mlflow

    mlflow.set_experiment("benchmark")
    collections = []

    def collected(phase: str, details: Mapping[str, int]) -> None:
        if phase == "stop" and details["generation"] == _FULL_COLLECTION:
            collections.append(details)

    resident = _resident_megabytes()
    gc.callbacks.append(collected)
    began = time.perf_counter(), time.thread_time(), time.process_time()
    mlflow.start_run()
    started = time.perf_counter(), time.thread_time(), len(collections)
    gc.callbacks.remove(collected)
    time.sleep(_BODY_SECONDS)
    mlflow.end_run()
    result = {
        "start_wall": (started[0] - began[0]) * _MILLISECONDS,
        "start_cpu": (started[1] - began[1]) * _MILLISECONDS,
        "all_cpu": (time.process_time() - began[2]) * _MILLISECONDS,
        "full_collections": started[2],
        "resident": _resident_megabytes() - resident,
        "threads": threading.active_count(),
    }
    if runs:
        spent = [_short_run() for _ in range(runs)]
        result["warm_wall"] = statistics.median(wall for wall, _ in spent)
        result["warm_cpu"] = statistics.median(cpu for _, cpu in spent)
    print("\n" + json.dumps(result))


def _short_run() -> tuple[float, float]:
    """Does a run; returns wall time of its start and end, and CPU time of all threads, in milliseconds."""
    import mlflow

    began, cpu = time.perf_counter(), time.process_time()
    mlflow.start_run()
    started = time.perf_counter()
    time.sleep(_BODY_SECONDS)
    ending = time.perf_counter()
    mlflow.end_run()
    wall = started - began + time.perf_counter() - ending
    return wall * _MILLISECONDS, (time.process_time() - cpu) * _MILLISECONDS


def _resident_megabytes() -> float:
    if sys.platform != "linux":
        return 0.0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def tables(found: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> dict[str, Table]:
    """Returns a table of first runs per place, and one of later runs where they were measured."""
    heading = ("", *(side.name for side in _SIDES), "ours - built-in", "ours / built-in")
    shown = {}
    for place, of_place in found.items():
        rounds = len(of_place[OURS.name])
        title = f"First run of a process, {place}: {rounds} of each side; min / median / 90 % / max"
        rows = [_row(label, key, of_place) for label, key in _FIRST_ROWS.items()]
        shown[f"first run, {place}"] = Table(title, heading, rows)
        if "warm_cpu" in of_place[OURS.name][0]:
            title = f"Later runs of {_BODY_SECONDS:g} s, {place}: medians of {rounds} processes"
            rows = [_row(label, key, of_place) for label, key in _LATER_ROWS.items()]
            shown[f"later runs, {place}"] = Table(title, heading, rows)
    return shown


def _row(label: str, key: str, of_place: Mapping[str, Sequence[Mapping[str, float]]]) -> tuple[str, ...]:
    values = {side: sorted(one[key] for one in of_side) for side, of_side in of_place.items()}
    medians = {side: statistics.median(of_side) for side, of_side in values.items()}
    ours, builtin = medians[OURS.name], medians[BUILT_IN.name]
    share = figure(ours / builtin) if builtin else "-"
    return (label, *(_spread(values[side.name]) for side in _SIDES), figure(ours - builtin), share)


def _spread(values: Sequence[float]) -> str:
    high = values[min(int(len(values) * 0.9), len(values) - 1)]
    return " / ".join(map(figure, (values[0], statistics.median(values), high, values[-1])))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The first run of a process, and short runs.")
    parser.add_argument("rounds", nargs="?", type=int, default=10, help="interpreters of each side and place")
    parser.add_argument("runs", nargs="?", type=int, default=20, help="later runs in each interpreter")
    options = parser.parse_args()
    for table in tables(measure(options.rounds, options.runs)).values():
        print(table)


if __name__ == "__main__":
    main()
