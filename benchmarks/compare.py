"""Compares this package with MLflow's built-in system metrics monitor, both measured in the same minutes.

Usage::

    python benchmarks/compare.py [--runs 1,16,64,256] [--seconds 60] [--repetitions 3] [--json]

See README.md beside this file for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import agreement
import concurrent_runs
import default_tick
import gpu
import gpu_steps
import import_time
import run_latency
import tables
import tick_cost

_PARTS = ("concurrent", "latency", "tick", "default_tick", "gpu", "import", "agreement")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(_PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    return parts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares mlflow-sysmetrics with MLflow's built-in monitor.")
    add = parser.add_argument
    add("--only", type=_parts, default=list(_PARTS), help=f"parts to measure, of {','.join(_PARTS)}")
    add("--runs", type=_numbers, default=[1, 16, 64, 256], help="how many runs at once, one table each")
    add("--seconds", type=float, default=60, help="how long the runs are watched; a multiple of 10 is fair")
    add("--repetitions", type=int, default=3, help="how often each number of runs is measured")
    add("--latency-runs", type=int, default=100, help="runs one after another, of each side")
    add("--ticks", type=int, default=1000, help="ticks of each side")
    add("--gpu-seconds", type=float, default=30, help="how long each kind of training step is repeated")
    add("--agreement-seconds", type=int, default=60, help="how long our figures are compared with others")
    add("--imports", type=int, default=25, help="imports of each side")
    add("--json", action="store_true", help="print everything that was measured, not the tables")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> Iterator[tuple[str, Any, tables.Table | str]]:
    """Yields name, raw figures and table of one measurement after another."""
    if "tick" in options.only:
        ticks = tick_cost.measure(options.ticks)
        yield "tick", ticks, tick_cost.table(ticks)
    if "default_tick" in options.only:
        for children in default_tick.CHILDREN:
            default = default_tick.measure(options.ticks, children)
            yield f"default tick, {children} children", default, default_tick.table(default)
    if "gpu" in options.only:
        yield from _measure_gpu(options)
    if "agreement" in options.only and sys.platform == "linux":  # /proc, free, df
        agreed = agreement.measure(options.agreement_seconds)
        yield "agreement", agreed, agreement.table(agreed)
    if "import" in options.only:
        imports = import_time.measure(options.imports)
        yield "import", imports, import_time.table(imports)
    if "latency" in options.only:
        latency = run_latency.measure(options.latency_runs)
        yield "latency", latency, run_latency.table(latency)
    if "concurrent" in options.only:
        for runs in options.runs:
            found = concurrent_runs.measure(runs, options.seconds, options.repetitions)
            yield f"concurrent {runs}", found, concurrent_runs.table(runs, options.seconds, found)


def _measure_gpu(options: argparse.Namespace) -> Iterator[tuple[str, Any, tables.Table | str]]:
    ticks = gpu.measure(options.ticks)
    yield "gpu", ticks, gpu.table(ticks)
    if "skipped" not in ticks:
        steps = gpu_steps.measure(options.gpu_seconds)
        yield "gpu steps", steps, gpu_steps.table(steps)


def main() -> None:
    """Measures and prints."""
    options = _options()
    machine = tables.machine()
    if not options.json:
        print(*(f"{name}: {value}" for name, value in machine.items()), "", tables.NOISE, "", sep="\n")
    raw: dict[str, Any] = {"machine": machine, "warning": tables.NOISE, "seconds": options.seconds}
    for name, found, table in _measure(options):
        raw[name] = found
        # Each as soon as it is known: the whole takes half an hour.
        print(
            f"{name}: done" if options.json else table,
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        )
    if options.json:
        print(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
