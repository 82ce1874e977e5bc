"""What sampling costs a training step on the GPU; run by `gpu.py`.

Steps run while nothing, MLflow's monitors, or our default collectors are sampled, alternating every few
seconds, on one GPU.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tables import Cell, Table, figure
from tick_cost import NO_SERVER, TICKS_PER_WINDOW, built_in_tick, our_probes, our_tick
from variants import BUILT_IN, fresh_worker

_MILLISECONDS, _PERCENT = 1e3, 100.0
_SAMPLING = ("nothing", "built-in", "ours")
_TICK_SECONDS = 1.0
_PHASE_SECONDS = 5.0  # a few ticks; short compared with the minutes in which a card warms up and slows down
# Products per step and their size. In "large" the program waits for the GPU; in "small" the GPU waits for the
# program, which a thread that holds the interpreter lock delays.
_STEPS = {"large": (10, 4096), "small": (200, 64)}


def gpu_steps(seconds: float) -> dict[str, Any]:
    """Runs training steps without sampling and with each side's sampling alternately, in the worker.

    Returns:
        The seconds of each step by kind of step and by sampler; or why it was skipped.
    """
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError:
        return {"skipped": "torch is not installed"}
    if not torch.cuda.is_available():
        return {"skipped": "torch finds no GPU"}
    ticks = {"nothing": None, "built-in": _built_in_with_gpus(), "ours": _ours_by_default()}
    spent: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in _SAMPLING} for kind in _STEPS}
    for kind, (products, size) in _STEPS.items():
        matrix = torch.randn(size, size, device="cuda", dtype=torch.float16) / size
        for _ in range(TICKS_PER_WINDOW):
            _step(torch, matrix, products)
        for number in range(max(1, round(seconds / _PHASE_SECONDS))):
            for name in _SAMPLING if number % 2 else reversed(_SAMPLING):
                with _ticking(ticks[name]):
                    spent[kind][name] += _phase(partial(_step, torch, matrix, products))
    return {"steps": spent, "card": torch.cuda.get_device_name()}


def _phase(step: Callable[[], None]) -> list[float]:
    """Runs steps for one phase and returns the seconds of each."""
    spent = []
    end = time.perf_counter() + _PHASE_SECONDS
    while (began := time.perf_counter()) < end:
        step()
        spent.append(time.perf_counter() - began)
    return spent


def _step(torch: Any, matrix: Any, products: int) -> None:
    found = matrix
    for _ in range(products):
        found = found @ matrix
    torch.cuda.synchronize()


def _built_in_with_gpus() -> Callable[[], None]:
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    host, _ = built_in_tick()
    gpus = GPUMonitor()

    def tick() -> None:
        host()
        gpus.collect_metrics()

    return tick


def _ours_by_default() -> Callable[[], None]:
    from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
    from mlflow_sysmetrics.samples import DEFAULT_FAMILIES

    tick, _ = our_tick(
        our_probes([one for one in load_classes(COLLECTORS) if one.family in DEFAULT_FAMILIES])
    )
    return tick


@contextlib.contextmanager
def _ticking(tick: Callable[[], None] | None) -> Iterator[None]:
    """Ticks every second in a thread, for the duration of a ``with`` block."""
    if tick is None:
        yield
        return
    end = threading.Event()

    def run() -> None:
        while not end.wait(_TICK_SECONDS):
            tick()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def measure(seconds: float) -> dict[str, Any]:
    """Returns the duration of steps by sampler, or why it cannot be measured, in a fresh interpreter."""
    with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
        takes = seconds * len(_STEPS) * len(_SAMPLING)
        found: dict[str, Any] = worker.ask("gpu_steps", takes=takes, seconds=seconds)
    return found


def table(found: Mapping[str, Any]) -> Table | str:
    """Returns the table of what `measure` found, or one line that says why there is none."""
    if "skipped" in found:
        return f"The effect on a training step is not measured: {found['skipped']}"
    rows = []
    for kind, (products, size) in _STEPS.items():
        cells = [Cell([one * _MILLISECONDS for one in found["steps"][kind][name]]) for name in _SAMPLING]
        title = f"{kind}: {products} products of {size} x {size}"
        rows.append((f"{title}, mean, ms", *(cell.show_mean() for cell in cells), *_changes(cells, "mean")))
        rows.append((f"{title}, 99 %, ms", *(figure(cell.p99) for cell in cells), *_changes(cells, "p99")))
    changes = [f"{name} - nothing, %" for name in _SAMPLING[1:]]
    return Table(
        f"A training step on {found['card']} while this is sampled every {_TICK_SECONDS:g} s",
        ("", *_SAMPLING, *changes),
        rows,
    )


def _changes(cells: Sequence[Cell], what: str) -> list[str]:
    nothing, *others = (getattr(cell, what) for cell in cells)
    return [figure(_PERCENT * (other - nothing) / nothing) for other in others]
