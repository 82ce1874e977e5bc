"""What a tick costs per GPU, and what sampling costs a training step.

    python benchmarks/gpu.py [TICKS] [SECONDS]

Three sides on the same NVIDIA cards: our collector under guard, MLflow's GPU monitor, and nothing but the
NVML calls that ours makes. These are written down while another instance of ours does the same tick by the
same clock, and done again, call by call. Without a GPU, one line says so.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tables import Cell, Table, figure, ratio
from tick_cost import (
    MICROSECONDS,
    NO_SERVER,
    PAUSE_SECONDS,
    TICKS_PER_WINDOW,
    built_in_tick,
    our_probes,
    our_tick,
)
from variants import BUILT_IN, fresh_worker

_MOST_TIMES_THE_BARE_CALLS = 1.5
_SIDES = ("built-in", "ours", "bare calls")
_MILLISECONDS, _PERCENT = 1e3, 100.0

_SAMPLING = ("nothing", "built-in", "ours")
_TICK_SECONDS = 1.0
_PHASE_SECONDS = 5.0  # a few ticks; short beside the minutes in which a card warms up and slows down
# Products per step and their size. "large" keeps the GPU busy, and the program waits for it; in "small" the
# GPU waits for the program, which a thread that holds the interpreter delays.
_STEPS = {"large": (10, 4096), "small": (200, 64)}

# What makes or frees something cannot be done twice with the same arguments; an ordinary tick has none of it.
_ONCE = ("Alloc", "Create", "Free", "Init", "Register", "Shutdown")


class _Call(NamedTuple):
    """One call of an NVML function."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]


class _Recorder:
    """Stands for `pynvml`: does what it does, and writes down which functions were called."""

    def __init__(self, nvml: Any) -> None:  # noqa: ANN401 - nvidia-ml-py ships no types
        self.calls: list[_Call] = []
        self._nvml = nvml

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        found = getattr(self._nvml, name)
        if not name.startswith("nvml") or not callable(found) or isinstance(found, type):
            return found  # a constant, a structure, an error

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as above
            if not any(word in name for word in _ONCE):
                self.calls.append(_Call(found, arguments, named))
            return found(*arguments, **named)

        return call


class _Stopwatch:
    """Notes the wall and CPU seconds of one side, tick by tick."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        cpu, wall = time.thread_time(), time.perf_counter()
        yield
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.thread_time() - cpu)


def gpu_ticks(count: int) -> dict[str, Any]:
    """Does ticks of all sides by turns, in the worker.

    Returns:
        The seconds of each tick and the number of series and devices by side; or why there are none.
    """
    import pynvml  # noqa: PLC0415 - only the worker needs it and the product
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor  # noqa: PLC0415

    from mlflow_sysmetrics.collectors.nvidia import Nvidia  # noqa: PLC0415
    from mlflow_sysmetrics.daemon.probe import OK, Probe  # noqa: PLC0415
    from mlflow_sysmetrics.host import Host  # noqa: PLC0415

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"skipped": f"NVML: {error}"}
    recorder = _Recorder(pynvml)
    probe, recorded = Probe(Nvidia, Host()), Probe(Nvidia, Host(load_nvml=lambda: recorder))
    monitor = GPUMonitor()
    now, keys, replayed = 0.0, set(), 0

    def ours() -> None:
        keys.update(sample.key for sample in probe.read(now))

    def bare_calls() -> None:
        for function, arguments, named in recorder.calls:
            with contextlib.suppress(pynvml.NVMLError):
                function(*arguments, **named)

    sides = dict(zip(_SIDES, (monitor.collect_metrics, ours, bare_calls), strict=True))
    watches = {name: _Stopwatch() for name in sides}
    for number in range(count):
        now += 1.0
        recorder.calls.clear()
        recorded.read(now)
        replayed += len(recorder.calls)
        for name in sides if number % 2 else reversed(sides):
            with watches[name].running():
                sides[name]()
        time.sleep(PAUSE_SECONDS)
    if not probe.health.startswith(OK):
        return {"skipped": f"our collector is {probe.health}"}
    devices = {key.split("_")[1] for key in keys}
    return {
        # Without the first ones, which open what was never opened.
        "wall": {name: watch.wall[TICKS_PER_WINDOW:] for name, watch in watches.items()},
        "cpu": {name: watch.cpu[TICKS_PER_WINDOW:] for name, watch in watches.items()},
        "devices": {"built-in": monitor.num_gpus, "ours": len(devices), "bare calls": len(devices)},
        "series": {"built-in": len(monitor.metrics), "ours": len(keys)},
        "calls": replayed / count,
        "health": probe.health,
        "cards": [_text(pynvml.nvmlDeviceGetName(handle)) for handle in monitor.gpu_handles],
    }


def gpu_steps(seconds: float) -> dict[str, Any]:
    """Does training steps without sampling and with either side's, by turns, in the worker.

    Returns:
        The seconds of each step by kind of step and by who samples; or why there are none.
    """
    try:
        import torch  # type: ignore[import-not-found]  # noqa: PLC0415 - no dependency of ours
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
                    spent[kind][name] += _phase(lambda: _step(torch, matrix, products))  # noqa: B023 - called here
    return {"steps": spent, "card": torch.cuda.get_device_name()}


def _phase(step: Callable[[], None]) -> list[float]:
    """Does steps for a while and returns the seconds of each."""
    spent = []
    end = time.perf_counter() + _PHASE_SECONDS
    while (began := time.perf_counter()) < end:
        step()
        spent.append(time.perf_counter() - began)
    return spent


def _step(torch: Any, matrix: Any, products: int) -> None:  # noqa: ANN401 - torch is no dependency
    found = matrix
    for _ in range(products):
        found = found @ matrix
    torch.cuda.synchronize()


def _built_in_with_gpus() -> Callable[[], None]:
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor  # noqa: PLC0415 - as above

    host, _ = built_in_tick()
    gpus = GPUMonitor()

    def tick() -> None:
        host()
        gpus.collect_metrics()

    return tick


def _ours_by_default() -> Callable[[], None]:
    from mlflow_sysmetrics.collectors import COLLECTORS  # noqa: PLC0415 - as above
    from mlflow_sysmetrics.samples import DEFAULT_FAMILIES  # noqa: PLC0415

    tick, _ = our_tick(our_probes([one for one in COLLECTORS if one.family in DEFAULT_FAMILIES]))
    return tick


@contextlib.contextmanager
def _ticking(tick: Callable[[], None] | None) -> Iterator[None]:
    """Ticks every second in a thread, for the time of a ``with`` block."""
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


def measure(count: int) -> dict[str, Any]:
    """Returns what ticks cost by side, or why that cannot be measured, in a fresh interpreter."""
    with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
        found: dict[str, Any] = worker.ask("gpu_ticks", count=count)
    return found


def measure_steps(seconds: float) -> dict[str, Any]:
    """Returns what steps take by who samples, or why that cannot be measured, in a fresh interpreter."""
    with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
        takes = seconds * len(_STEPS) * len(_SAMPLING)
        found: dict[str, Any] = worker.ask("gpu_steps", takes=takes, seconds=seconds)
    return found


def table(found: Mapping[str, Any]) -> Table | str:
    """Returns the table of what `measure` found, or one line that says why there is none."""
    if "skipped" in found:
        return f'The part "gpu" is skipped: {found["skipped"]}\n'
    wall, cpu = (_per_gpu(found, clock) for clock in ("wall", "cpu"))
    times = wall["ours"].median / wall["bare calls"].median
    kept = "yes" if times < _MOST_TIMES_THE_BARE_CALLS else "NO"
    series = [str(found["series"][name]) for name in ("built-in", "ours")]
    return Table(
        f"One tick of {' + '.join(found['cards'])}, per GPU, {len(wall['ours'].values)} ticks of each side; "
        f"ours is {found['health']}",
        ("", *_SIDES, "built-in / ours", "ours / bare calls"),
        [
            _row("wall, microseconds, median", wall, lambda cell: cell.show(), lambda cell: cell.median),
            _row("wall, microseconds, mean", wall, lambda cell: cell.show_mean(), lambda cell: cell.mean),
            _row("CPU, microseconds, median", cpu, lambda cell: cell.show(), lambda cell: cell.median),
            _row("CPU, microseconds, mean", cpu, lambda cell: cell.show_mean(), lambda cell: cell.mean),
            ("NVML calls of a tick, all GPUs", "", "", figure(found["calls"]), "", ""),
            ("series, all GPUs", *series, "", "", ""),
            (f"less than {_MOST_TIMES_THE_BARE_CALLS:g} times the bare calls", "", "", "", "", kept),
        ],
    )


def _per_gpu(found: Mapping[str, Any], clock: str) -> dict[str, Cell]:
    return {
        name: Cell([seconds * MICROSECONDS / found["devices"][name] for seconds in found[clock][name]])
        for name in _SIDES
    }


def _row(
    title: str, cells: Mapping[str, Cell], show: Callable[[Cell], str], one: Callable[[Cell], float]
) -> Sequence[str]:
    built_in, ours, bare = (one(cells[name]) for name in _SIDES)
    return (title, *(show(cells[name]) for name in _SIDES), ratio(built_in, ours), ratio(ours, bare))


def steps_table(found: Mapping[str, Any]) -> Table | str:
    """Returns the table of what `measure_steps` found, or one line that says why there is none."""
    if "skipped" in found:
        return f"The effect on a training step is not measured: {found['skipped']}\n"
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


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes before nvidia-ml-py 11.515


def main() -> None:
    """Measures and prints."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0  # noqa: PLR2004 - the second argument
    found = measure(count)
    print(table(found))
    if "skipped" not in found:
        print(steps_table(measure_steps(seconds)))


if __name__ == "__main__":
    main()
