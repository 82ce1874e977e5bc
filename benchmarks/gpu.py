"""What a tick costs per GPU, and what sampling costs a training step.

    python benchmarks/gpu.py [TICKS] [SECONDS]

Three sides on the same NVIDIA cards: our collector in its probe, MLflow's GPU monitor, and only the NVML
calls that ours makes. These calls are recorded while another instance of ours does the same tick at the same
time, and then repeated one by one. Without a GPU, one line says so.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gpu_steps
from tables import Cell, Table, figure, ratio
from tick_cost import MICROSECONDS, NO_SERVER, PAUSE_SECONDS, TICKS_PER_WINDOW
from variants import BUILT_IN, fresh_worker

_MOST_TIMES_THE_BARE_CALLS = 1.5
_SIDES = ("built-in", "ours", "bare calls")
# Calls that allocate or free something cannot be repeated; an ordinary tick has none of them.
_ONCE = ("Alloc", "Create", "Free", "Init", "Register", "Shutdown")


class _Call(NamedTuple):
    """One call of an NVML function."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]


class _Recorder:
    """Wraps `pynvml` and records which functions are called."""

    def __init__(self, nvml: Any) -> None:
        self.calls: list[_Call] = []
        self._nvml = nvml

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._nvml, name)
        if not name.startswith("nvml") or not callable(found) or isinstance(found, type):
            return found  # a constant, a structure or an error class

        def call(*arguments: Any, **named: Any) -> Any:
            if not any(word in name for word in _ONCE):
                self.calls.append(_Call(found, arguments, named))
            return found(*arguments, **named)

        return call

    def repeat(self) -> None:
        """Repeats the recorded calls."""
        for function, arguments, named in self.calls:
            try:
                function(*arguments, **named)
            except self._nvml.NVMLError:
                continue


class _Stopwatch:
    """Records the wall and CPU seconds of one side, tick by tick."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def take(self, tick: Callable[[], None]) -> None:
        """Measures one tick of the side."""
        cpu, wall = time.thread_time(), time.perf_counter()
        tick()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.thread_time() - cpu)


def gpu_ticks(count: int) -> dict[str, Any]:
    """Runs ticks of all sides alternately, in the worker.

    Returns:
        The seconds of each tick and the number of series and devices by side; or why it was skipped.
    """
    import pynvml
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    from mlflow_sysmetrics.collectors.nvidia import Nvidia
    from mlflow_sysmetrics.daemon.sampling.probe import Probe
    from mlflow_sysmetrics.machine.host import Host

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"skipped": f"NVML: {error}"}
    recorder = _Recorder(pynvml)
    probe, recorded = Probe(Nvidia, Host()), Probe(Nvidia, Host(load_nvml=lambda: recorder))
    monitor = GPUMonitor()
    keys: set[str] = set()
    now, repeated = 0.0, 0

    def ours() -> None:
        keys.update(sample.key for sample in probe.read(now))

    sides = dict(zip(_SIDES, (monitor.collect_metrics, ours, recorder.repeat), strict=True))
    watches = {name: _Stopwatch() for name in sides}
    for number in range(TICKS_PER_WINDOW + count):
        now += 1.0
        recorder.calls.clear()
        recorded.read(now)
        repeated += len(recorder.calls)
        for name in sides if number % 2 else reversed(sides):
            watches[name].take(sides[name])
        if not keys:
            return {"skipped": f"our collector reads no GPU: {probe.health}"}
        time.sleep(PAUSE_SECONDS)
    devices = {key.split("_")[1] for key in keys}
    return {
        # Without the first ticks, which open devices for the first time.
        "wall": {name: watch.wall[TICKS_PER_WINDOW:] for name, watch in watches.items()},
        "cpu": {name: watch.cpu[TICKS_PER_WINDOW:] for name, watch in watches.items()},
        "devices": {"built-in": monitor.num_gpus, "ours": len(devices), "bare calls": len(devices)},
        "series": {"built-in": len(monitor.metrics), "ours": len(keys)},
        "calls": repeated / (TICKS_PER_WINDOW + count),
        "health": probe.health,
        "cards": [_text(pynvml.nvmlDeviceGetName(handle)) for handle in monitor.gpu_handles],
    }


def measure(count: int) -> dict[str, Any]:
    """Returns the cost of ticks by side, or why it cannot be measured, in a fresh interpreter."""
    with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
        found: dict[str, Any] = worker.ask("gpu_ticks", count=count)
    return found


def table(found: Mapping[str, Any]) -> Table | str:
    """Returns the table of what `measure` found, or one line that says why there is none."""
    if "skipped" in found:
        return f'The part "gpu" is skipped: {found["skipped"]}'
    wall, cpu = (_per_gpu(found, clock) for clock in ("wall", "cpu"))
    times = wall["ours"].median / wall["bare calls"].median
    kept = "yes" if times < _MOST_TIMES_THE_BARE_CALLS else "NO"
    series = [str(found["series"][name]) for name in ("built-in", "ours")]
    cards = " + ".join(_counted(found["cards"]))
    return Table(
        f"One tick of {cards}, per GPU, {len(wall['ours'].values)} ticks of each side; "
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


def _counted(names: Sequence[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        yield name if count == 1 else f"{count} x {name}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes before nvidia-ml-py 11.515


def main() -> None:
    """Measures and prints."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    found = measure(count)
    print(table(found))
    if "skipped" not in found:
        print(gpu_steps.table(gpu_steps.measure(seconds)))


if __name__ == "__main__":
    main()
