"""Compares this package with MLflow's built-in system metrics monitor, measured alternately.

Usage::

    python benchmarks/compare.py [--runs 1,16,64,256] [--seconds 60] [--repetitions 3] [--json]

See README.md beside this file for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import agreement
import concurrent_runs
import default_tick
import delivery
import gpu
import gpu_steps
import growth
import idle
import import_time
import interference
import journal_append
import run_latency
import short_runs
import tables
import tick_cost


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(_PARTS):
        raise argparse.ArgumentTypeError(f"parts must be of {', '.join(_PARTS)}, got {', '.join(unknown)}")
    return parts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares mlflow-sysmetrics with MLflow's built-in monitor.")
    add = parser.add_argument
    add("--only", type=_parts, default=list(_PARTS), help=f"parts to measure, of {','.join(_PARTS)}")
    add("--runs", type=_numbers, default=[1, 16, 64, 256], help="numbers of concurrent runs, one table each")
    add("--seconds", type=float, default=60, help="how long the runs are observed; a multiple of 10 is fair")
    add("--repetitions", type=int, default=3, help="how many times each number of runs is measured")
    add("--latency-runs", type=int, default=100, help="consecutive runs of each side")
    add("--first-runs", type=int, default=10, help="interpreters of each side that do a first run")
    add("--short-runs", type=int, default=20, help="later short runs in each of these")
    add("--ticks", type=int, default=1000, help="ticks of each side")
    add("--appends", type=int, default=20_000, help="points appended to a journal")
    add("--rounds", type=int, default=40, help="turns of each side that delivers points over REST")
    add("--growth-runs", type=_numbers, default=list(growth.RUNS), help="numbers of runs that grow")
    add("--growth-seconds", type=float, default=30, help="how long many runs are observed")
    add("--gpu-seconds", type=float, default=30, help="how long each kind of training step is repeated")
    add("--agreement-seconds", type=int, default=60, help="how long our figures are compared with others")
    add("--imports", type=int, default=25, help="imports of each side")
    add("--idle-seconds", type=float, default=240, help="how long all sides idle at the same time")
    add("--pairs", type=int, default=200, help="pairs of blocks with and without the sampler")
    add("--quick", action="store_true", help="all or what --only names, in about five minutes")
    add("--json", action="store_true", help="print all measurements instead of the tables")
    options = parser.parse_args()
    for name, value in _QUICK.items() if options.quick else ():
        if getattr(options, name) == parser.get_default(name):
            setattr(options, name, value)
    return options


# What is given on the command line counts all the same.
_QUICK: dict[str, Any] = {
    "runs": [1, 16],
    "seconds": 10.0,
    "repetitions": 1,
    "latency_runs": 15,
    "ticks": 150,
    "appends": 5000,
    "gpu_seconds": 5.0,
    "agreement_seconds": 15,
    "imports": 3,
    "idle_seconds": 30.0,
    "pairs": 20,
    "first_runs": 1,
    "short_runs": 5,
    "rounds": 8,
    "growth_runs": [256, 1000],
    "growth_seconds": 5.0,
}


Measured = Iterator[tuple[str, Any, tables.Table | str]]  # name, raw figures, table


def _tick(options: argparse.Namespace) -> Measured:
    found = tick_cost.measure(options.ticks)
    yield "tick", found, tick_cost.table(found)


def _default_tick(options: argparse.Namespace) -> Measured:
    for children in default_tick.CHILDREN:
        found = default_tick.measure(options.ticks, children)
        yield f"default tick, {children} children", found, default_tick.table(found)


def _journal(options: argparse.Namespace) -> Measured:
    found = journal_append.measure(options.appends)
    yield "journal", found, journal_append.table(found)


def _delivery(options: argparse.Namespace) -> Measured:
    found = delivery.measure_all(options.rounds)
    yield "delivery", found, delivery.table(found)


def _growth(options: argparse.Namespace) -> Measured:
    found = growth.measure_all(options.growth_runs, options.growth_seconds, options.repetitions)
    yield "growth", found, growth.table(found, options.growth_seconds)


def _gpu(options: argparse.Namespace) -> Measured:
    ticks = gpu.measure(options.ticks)
    yield "gpu", ticks, gpu.table(ticks)
    if "skipped" not in ticks:
        steps = gpu_steps.measure(options.gpu_seconds)
        yield "gpu steps", steps, gpu_steps.table(steps)


def _agreement(options: argparse.Namespace) -> Measured:
    if sys.platform == "linux":  # /proc, free, df
        found = agreement.measure(options.agreement_seconds)
        yield "agreement", found, agreement.table(found)


def _import(options: argparse.Namespace) -> Measured:
    found = import_time.measure(options.imports)
    yield "import", found, import_time.table(found)


def _idle(options: argparse.Namespace) -> Measured:
    found = idle.measure(options.idle_seconds)
    yield "idle", found, idle.table(found)


def _interference(options: argparse.Namespace) -> Measured:
    found = interference.measure(options.pairs)
    yield "interference", found, interference.table(found)


def _latency(options: argparse.Namespace) -> Measured:
    found = run_latency.measure(options.latency_runs)
    yield "latency", found, run_latency.table(found)


def _short(options: argparse.Namespace) -> Measured:
    found = short_runs.measure(options.first_runs, options.short_runs)
    for place, table in short_runs.tables(found).items():
        yield place, found, table


def _concurrent(options: argparse.Namespace) -> Measured:
    for runs in options.runs:
        found = concurrent_runs.measure(runs, options.seconds, options.repetitions)
        yield f"concurrent {runs}", found, concurrent_runs.table(runs, options.seconds, found)


# In this order: short measurements first.
_PARTS: dict[str, Callable[[argparse.Namespace], Measured]] = {
    "tick": _tick,
    "default_tick": _default_tick,
    "journal": _journal,
    "delivery": _delivery,
    "gpu": _gpu,
    "agreement": _agreement,
    "import": _import,
    "idle": _idle,
    "interference": _interference,
    "latency": _latency,
    "short": _short,
    "concurrent": _concurrent,
    "growth": _growth,
}


def main() -> None:
    """Measures and prints."""
    options = _options()
    machine = tables.machine()
    if not options.json:
        print(*(f"{name}: {value}" for name, value in machine.items()), "", tables.NOISE, "", sep="\n")
    raw: dict[str, Any] = {"machine": machine, "warning": tables.NOISE, "seconds": options.seconds}
    measured = chain.from_iterable(part(options) for name, part in _PARTS.items() if name in options.only)
    for name, found, table in measured:
        raw[name] = found
        # Print each table immediately: everything together takes half an hour.
        print(
            f"{name}: done" if options.json else table,
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        )
    if options.json:
        print(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
