"""The NVIDIA collectors on a real device, compared with nvidia-smi and with the fake.

Run by hand on a machine with a GPU: `pytest -m gpu`. If SYSMETRICS_RECORD is set to a folder, the answers of
the device are written there as `nvml.json` (see `nvml_recorder`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pynvml
import pytest

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.machine.host import Host
from nvml_recorder import Recorder, described, differences

MOST_BESIDE_THE_CALLS = 1.5  # limit of a tick as a multiple of the bare NVML calls
TICKS = 3


def devices() -> int:
    """Returns the number of GPUs that NVML lists; 0 without a driver."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not devices(), reason="no NVIDIA GPU")]


def collector(kind: type[Collector], nvml: Any = pynvml) -> Collector:
    return kind(Host(environ={}, gpus="all", load_nvml=lambda: nvml))


@pytest.fixture(scope="module")
def recorded() -> tuple[Recorder, list[dict[str, float]]]:
    """The calls and samples of both collectors in a few ticks, a second apart."""
    recorder = Recorder(pynvml)
    built = [collector(kind, recorder) for kind in (Nvidia, NvidiaProfile)]
    ticks = []
    for _ in range(TICKS):
        now = time.monotonic()
        ticks.append({sample.key: sample.value for one in built for sample in one.collect(now)})
        time.sleep(1)
    if "SYSMETRICS_RECORD" in os.environ:
        recorder.write(
            Path(os.environ["SYSMETRICS_RECORD"]),
            driver=pynvml.nvmlSystemGetDriverVersion(),
            gaps=[gap for one in built for gap in one.gaps],
            values=ticks[-1],
        )
    return recorder, ticks


def smi(*names: str) -> list[float | None]:
    """Returns the values of nvidia-smi for the first GPU; None for unknown ones."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        pytest.skip("no nvidia-smi")
    asked = [tool, "--id=0", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    line = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
    found = (word.strip() for word in line.split(","))
    return [float(word) if word.replace(".", "", 1).isdigit() else None for word in found]


def test_answers_of_a_device_are_finite_and_within_bounds(
    recorded: tuple[Recorder, list[dict[str, float]]],
) -> None:
    _, ticks = recorded
    assert any(key.startswith("gpu_0_") for key in ticks[-1])
    for found in ticks:
        for key, value in found.items():
            assert 0 <= value < 1e9, key
            if key.endswith("_percentage") and "power" not in key:  # power may briefly exceed its limit
                assert value <= 100, key


@pytest.mark.parametrize(
    ("name", "key", "share", "least"),
    [
        ("memory.used", "memory_usage_megabytes", 0.02, 300),
        ("temperature.gpu", "temperature_celsius", 0.0, 5),
        ("temperature.memory", "memory_temperature_celsius", 0.0, 5),
        ("power.draw", "power_usage_watts", 0.25, 25),
        ("utilization.gpu", "utilization_percentage", 0.0, 20),
        ("clocks.mem", "memory_clock_megahertz", 0.05, 5),
    ],
)
def test_values_agree_with_nvidia_smi(name: str, key: str, share: float, least: float) -> None:
    (theirs,) = smi(name)
    if theirs is None:
        pytest.skip(f"nvidia-smi does not know {name} of this device")
    if name == "memory.used":
        theirs *= 1024**2 / 1e6
    found = {
        sample.key: sample.value
        for kind in (Nvidia, NvidiaProfile)
        for sample in collector(kind).collect(time.monotonic())
    }
    assert found[f"gpu_0_{key}"] == pytest.approx(theirs, rel=share, abs=least)


def test_power_percentage_refers_to_the_limit_of_nvidia_smi() -> None:
    (limit,) = smi("enforced.power.limit")
    found = {sample.key: sample.value for sample in collector(Nvidia).collect(time.monotonic())}
    if limit is None or "gpu_0_power_usage_percentage" not in found:
        pytest.skip("this device has no power limit")
    watts = found["gpu_0_power_usage_watts"]
    assert found["gpu_0_power_usage_percentage"] == pytest.approx(100 * watts / limit, rel=0.01)


def test_the_fake_answers_like_the_device(recorded: tuple[Recorder, list[dict[str, float]]]) -> None:
    """Makes the same calls in the same order; `test_nvidia_recorder.py` shows that this can fail."""
    recorder, _ = recorded
    calls = list(recorder.calls)
    if any(call.function == "nvmlDeviceGetMigDeviceHandleByIndex" for call in calls):
        pytest.skip("the described device is not cut into slices")
    assert len({call.function for call in calls if call.error is None}) > 8
    assert differences(calls, described(calls)) == []


def test_a_tick_takes_little_more_time_than_the_bare_calls() -> None:
    recorder = Recorder(pynvml)
    one = collector(Nvidia, recorder)
    list(one.collect(0.0))
    recorder.replay.clear()
    list(one.collect(1.0))
    calls = list(recorder.replay)
    two = collector(Nvidia)
    now = iter(range(10**6))
    ours = _median_seconds(lambda: list(two.collect(next(now) * 1e-3)))  # within the pauses, like most ticks
    bare = _median_seconds(lambda: [_quiet(call) for call in calls])
    assert ours < MOST_BESIDE_THE_CALLS * bare


def _quiet(call: Callable[[], Any]) -> None:
    try:
        call()
    except pynvml.NVMLError:
        return  # no event, the usual case


def _median_seconds(action: Callable[[], Any]) -> float:
    times = []
    for _ in range(200):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return median(times)


def test_cuda_starts_in_a_child_forked_after_sampling() -> None:
    program = """
        import ctypes, os, time
        from mlflow_sysmetrics.collectors.nvidia import Nvidia
        from mlflow_sysmetrics.machine.host import Host

        parent = Nvidia(Host(gpus="all"))
        assert list(parent.collect(time.monotonic()))
        child = os.fork()
        if child == 0:
            cuda = ctypes.CDLL("libcuda.so.1")
            count, context = ctypes.c_int(), ctypes.c_void_p()
            works = (
                cuda.cuInit(0) == 0
                and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
                and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
                and list(Nvidia(Host(gpus="all")).collect(time.monotonic()))
            )
            os._exit(0 if works else 1)
        _, status = os.waitpid(child, 0)
        assert list(parent.collect(time.monotonic()))
        raise SystemExit(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_collector_leaves_no_open_file_behind() -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open files can be counted on Linux only")
    counts = []
    for _ in range(4):
        for kind in (Nvidia, NvidiaProfile):
            one = collector(kind)
            list(one.collect(0.0))
            list(one.collect(1.0))
            del one
        counts.append(len(os.listdir(descriptors)))
    assert counts[1] == counts[-1]
