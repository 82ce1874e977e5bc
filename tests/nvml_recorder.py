"""Records the answers of NVML: every call with its value or error and its duration.

`test_gpu_live.py` puts it between the collectors and the real module on a machine with a GPU:

    SYSMETRICS_RECORD=tests/hosts/<card> pytest -m gpu tests/integration/test_gpu_live.py

writes `nvml.json` there. UUIDs and process ids are replaced, since they identify a card and its users.
`differences` repeats the calls on a fake and reports where its answers differ from those of the device.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from fake_gpu import Buffer, FakeGpu, Handle
from fake_nvml import FakeNvml, Process

_UUID = re.compile(r"(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Call:
    """One call of a function.

    Attributes:
        function: its name.
        arguments: the arguments that are numbers or lists of numbers; all others are pointers.
        answer: its value as JSON; None if it failed.
        error: the error number of NVML if it failed.
        microseconds: its duration.
        passed: all arguments, including pointers.
        returned: its value, including pointers; None if it failed.
    """

    function: str
    arguments: list[Any]
    answer: Any
    error: int | None
    microseconds: float
    passed: tuple[Any, ...]
    returned: Any


class Pointer(NamedTuple):
    """The target of a pointer: a device, an event set or a sample."""

    address: int


class Recorder:
    """Sits between the collectors and `pynvml`.

    Attributes:
        calls: the recorded calls, in order.
        replay: the same calls, to repeat them without the recorder.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self.calls: list[Call] = []
        self.replay: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not name.startswith("nvml") or not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            self.replay.append(lambda: found(*arguments))
            passed = tuple(map(kept, arguments))  # before the call, which fills structures
            began = time.perf_counter()
            try:
                answer = found(*arguments)
            except self._module.NVMLError as error:
                self._keep(name, arguments, passed, None, error.value, began)
                raise
            self._keep(name, arguments, passed, answer, None, began)
            return answer

        return call

    def write(self, folder: Path, **about: Any) -> Path:
        """Writes each distinct call once, with its last answer and the median of all durations."""
        folder.mkdir(parents=True, exist_ok=True)
        asked: dict[str, list[Call]] = {}
        for call in self.calls:
            asked.setdefault(json.dumps([call.function, call.arguments, call.error]), []).append(call)
        calls = [
            {name: told for name, told in asdict(same[-1]).items() if name not in {"passed", "returned"}}
            | {"times": len(same), "microseconds": round(median(one.microseconds for one in same), 1)}
            for same in asked.values()
        ]
        file = folder / "nvml.json"
        file.write_text(json.dumps(about | {"calls": calls}, indent=1) + "\n")
        return file

    def _keep(  # noqa: PLR0917 - the complete record of a call
        self, function: str, arguments: Any, passed: Any, answer: Any, error: int | None, began: float
    ) -> None:
        microseconds = (time.perf_counter() - began) * 1e6
        told = [one for one in map(plain, arguments) if one is not None and not isinstance(one, dict)]
        self.calls.append(Call(function, told, plain(answer), error, microseconds, passed, kept(answer)))


def plain(value: Any) -> Any:
    """Returns the part of an answer that JSON can represent; None for a pointer."""
    if isinstance(value, str | bytes):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return _UUID.sub(r"\1-00000000-0000-0000-0000-000000000000", text)
    if value is None or isinstance(value, int | float):
        return value
    if hasattr(value, "contents"):
        return None
    members = _members(value)
    if members:
        return {name: plain(each) for name, each in members.items() if not _pointer(each)}
    return [plain(each) for each in value] if hasattr(value, "__len__") else None


def _members(value: Any) -> Mapping[str, Any]:
    if hasattr(value, "_fields_"):  # a structure of ctypes
        found = {name: getattr(value, name) for name, *_ in value._fields_}
    elif hasattr(value, "_asdict"):
        found = value._asdict()
    else:
        found = dict(getattr(value, "__dict__", {}))
    if "pid" in found:
        found["pid"] = "self" if found["pid"] == os.getpid() else "other"
    if "metrics" in found:  # only the requested ones of more than a hundred
        found["metrics"] = list(found["metrics"][: found["numMetrics"]])
    return found


def _pointer(value: Any) -> bool:
    return hasattr(value, "contents")


def kept(value: Any) -> Any:
    """Returns a snapshot of an argument or an answer: structures as mappings, pointers by address."""
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    if _pointer(value):
        return Pointer(ctypes.cast(value, ctypes.c_void_p).value or 0)
    if isinstance(value, Handle | Buffer) or type(value) is object:  # pointers of the fake
        return Pointer(id(value))
    if isinstance(value, ctypes.Array):
        return list(map(kept, value))
    if hasattr(value, "_fields_") or hasattr(value, "_asdict") or hasattr(value, "__dict__"):
        members = dict(value._asdict()) if hasattr(value, "_asdict") else _raw_members(value)
        if "metrics" in members:
            members["metrics"] = list(members["metrics"])[: members["numMetrics"]]
        return {name: kept(each) for name, each in members.items()}
    return type(value)(map(kept, value)) if isinstance(value, list | tuple) else list(map(kept, value))


def _raw_members(value: Any) -> dict[str, Any]:
    if hasattr(value, "_fields_"):
        return {name: getattr(value, name) for name, *_ in value._fields_}
    return dict(vars(value))


# Plausible ranges of answers in NVML's units; another unit or meaning would fall outside.
# Keyed by function, member of the answer, and number of the field or metric.
RANGES: Mapping[str, tuple[float, float]] = {
    "nvmlDeviceGetCount": (1, 64),
    "nvmlDeviceGetMemoryInfo.total": (2**27, 2**42),
    "nvmlDeviceGetMemoryInfo.used": (0, 2**42),
    "nvmlDeviceGetMemoryInfo.reserved": (0, 2**36),
    "nvmlDeviceGetUtilizationRates.gpu": (0, 100),
    "nvmlDeviceGetUtilizationRates.memory": (0, 100),
    "nvmlDeviceGetPowerUsage": (1e3, 3e6),
    "nvmlDeviceGetEnforcedPowerLimit": (1e4, 3e6),
    "nvmlDeviceGetTotalEnergyConsumption": (0, 1e15),
    "nvmlDeviceGetTemperatureV": (1, 130),
    "nvmlDeviceGetTemperature": (1, 130),
    "nvmlDeviceGetClockInfo": (1, 20_000),
    "nvmlDeviceGetTotalEccErrors": (0, 2**40),
    "nvmlDeviceGetRemappedRows": (0, 10_000),
    "nvmlDeviceGetMigMode": (0, 1),
    "nvmlDeviceGetCurrentClocksEventReasons": (0, 0xFFFF),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (0, 0xFFFF),
    "nvmlDeviceGetComputeRunningProcesses.usedGpuMemory": (0, 2**42),
    "nvmlGpmQueryDeviceSupport.isSupportedDevice": (0, 1),
    "nvmlDeviceGetFieldValues.valueType": (0, 6),
    "nvmlDeviceGetFieldValues.value.ullVal[82]": (0, 130),
    **{f"nvmlDeviceGetFieldValues.value.ullVal[{field}]": (0, 1e18) for field in (74, 75, 77)},
    **{f"nvmlDeviceGetFieldValues.value.ullVal[{field}]": (0, 2**63) for field in (138, 139, 197, 198)},
    **{f"nvmlGpmMetricsGet.metrics.value[{metric}]": (0, 101) for metric in (1, 2, 3, 5, 10)},
    **{f"nvmlGpmMetricsGet.metrics.value[{metric}]": (0, 1e7) for metric in (20, 21, 60, 61)},
}
_NOT_AVAILABLE = {2**32 - 1, 2**64 - 1}
_AS_MANY_AS_THERE_ARE = "nvmlDeviceGetComputeRunningProcesses"


def described(calls: Sequence[Call]) -> FakeNvml:
    """Returns a fake with the recorded GPUs under their UUIDs; it supports every query."""
    uuids = dict.fromkeys(
        call.returned for call in calls if call.function == "nvmlDeviceGetUUID" and call.error is None
    )
    return FakeNvml(*map(_capable, uuids))


def _capable(uuid: str) -> FakeGpu:
    return FakeGpu(
        "NVIDIA H100",
        uuid,
        80_000_000_000,
        1_000_000_000,
        50,
        power_milliwatts=350_000,
        power_limit_milliwatts=700_000,
        memory_utilization=10,
        memory_reserved_bytes=500_000_000,
        energy_millijoules=10**9,
        temperature=50,
        processes=[Process(1, 10**9)],
        ecc_corrected=0,
        remapped_rows=0,
        reasons=1,
        sm_clock=1980,
        memory_clock=2619,
        fields=dict.fromkeys((74, 75, 77, 138, 139, 197, 198), 10**9) | {82: 60},
        gpm=dict.fromkeys((1, 2, 3, 5, 10, 20, 21, 60, 61), 50.0),
        mig_capable=True,
    )


def differences(calls: Sequence[Call], fake: FakeNvml) -> list[str]:
    """Returns how the answers of a fake differ from those of a device, for the same calls in the same order.

    A device may fail where the fake answers, if the fake can raise the same error; not vice versa.

    Args:
        calls: the recorded calls.
        fake: a fake that supports every query, as from `described`.
    """
    pointers: dict[int, Any] = {}
    found: dict[str, None] = {}
    for call in calls:
        function = getattr(fake, call.function, None)
        if function is None:
            found[f"{call.function}: the fake lacks it"] = None
            continue
        if call.function == "nvmlEventSetWait_v2" and call.error is None:
            fake.events.append((fake.gpus[0], 2**32 - 1))
        try:
            answer = function(*[_mapped(one, pointers, fake) for one in call.passed])
        except fake.NVMLError as error:
            if call.error is None:
                found[f"{call.function}: the fake refuses it with {error.value}"] = None
            continue
        if call.error is not None:
            names = [name for name in dir(fake) if getattr(getattr(fake, name), "value", 0) == call.error]
            if not any(name.startswith("NVMLError_") for name in names):
                found[f"{call.function}: the fake has no error {call.error}"] = None
            continue
        if isinstance(call.returned, Pointer):
            pointers[call.returned.address] = answer
        for difference in _compare(call.function, kept(answer), call.returned):
            found[difference] = None
    return list(found)


def _mapped(value: Any, pointers: Mapping[int, Any], fake: FakeNvml) -> Any:
    """Returns an argument as the fake expects it."""
    if isinstance(value, Pointer):
        return pointers[value.address]
    if isinstance(value, dict):  # a GPM request, the only structure passed
        request = fake.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = value["version"], value["numMetrics"]
        request.sample1, request.sample2 = (pointers[value[name].address] for name in ("sample1", "sample2"))
        for metric, asked in zip(request.metrics, value["metrics"], strict=False):
            metric.metricId = asked["metricId"]
        return request
    return value


def _compare(path: str, fake: Any, real: Any, which: str = "") -> Iterator[str]:
    if isinstance(fake, Pointer) or isinstance(real, Pointer):
        if type(fake) is not type(real):
            yield f"{path}: {fake!r} instead of {real!r}"
    elif isinstance(fake, dict) and isinstance(real, dict):
        yield from _compare_members(path, fake, real, which)
    elif isinstance(fake, list | tuple) and type(fake) is type(real):
        if len(fake) != len(real) and path != _AS_MANY_AS_THERE_ARE:
            yield f"{path}: {len(fake)} values instead of {len(real)}"
        for ours, theirs in zip(fake, real, strict=False):
            yield from _compare(path, ours, theirs, which)
    elif type(fake) is not type(real) and not (which and None in {fake, real}):
        yield f"{path}: {type(fake).__name__} instead of {type(real).__name__}"
    else:
        yield from _beyond(path, which, fake, real)


def _compare_members(path: str, fake: Any, real: Any, which: str) -> Iterator[str]:
    yield from (f"{path}.{name}: the device has no such member" for name in fake.keys() - real.keys())
    which = str(real.get("fieldId", real.get("metricId", which)))
    if real.get("nvmlReturn"):
        return  # an unsupported field has no value
    if fake.get("nvmlReturn"):
        yield f"{path}[{which}]: the fake refuses it with {fake['nvmlReturn']}"
        return
    for name in fake.keys() & real.keys():
        yield from _compare(f"{path}.{name}", fake[name], real[name], which)


def _beyond(path: str, which: str, fake: Any, real: Any) -> Iterator[str]:
    low, high = RANGES.get(f"{path}[{which}]") or RANGES.get(path) or (None, None)
    if low is None or high is None:
        return
    for whose, value in (("the fake", fake), ("the device", real)):
        if isinstance(value, int | float) and value not in _NOT_AVAILABLE and not low <= value <= high:
            yield f"{path}: {value} of {whose} is beyond {low} to {high}"
