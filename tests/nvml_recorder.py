"""Keeps what NVML answers: every call with its value or error, and how long it took.

`test_gpu_live.py` puts it between the collectors and the real module on a machine with a GPU:

    SYSMETRICS_RECORD=tests/hosts/<card> pytest -m gpu tests/integration/test_gpu_live.py

writes `nvml.json` there. UUIDs and the ids of processes are replaced: they tell of one card and its users.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

_UUID = re.compile(r"(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Call:
    """One call of a function.

    Attributes:
        function: its name.
        arguments: those that are numbers or lists of them; what else it got is a pointer.
        answer: its value, as JSON can hold it; None where it failed.
        error: NVML's number, where it failed.
        microseconds: how long it took.
    """

    function: str
    arguments: list[Any]
    answer: Any
    error: int | None
    microseconds: float


class Recorder:
    """Stands between the collectors and `pynvml`.

    Attributes:
        calls: what was asked, in order.
        replay: the same calls, to be made again without anything in between.
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
            began = time.perf_counter()
            try:
                answer = found(*arguments)
            except self._module.NVMLError as error:
                self._keep(name, arguments, None, error.value, began)
                raise
            self._keep(name, arguments, plain(answer), None, began)
            return answer

        return call

    def write(self, folder: Path, **about: Any) -> Path:
        """Writes each distinct question once, with the answer to the last and the median time of all."""
        folder.mkdir(parents=True, exist_ok=True)
        asked: dict[str, list[Call]] = {}
        for call in self.calls:
            asked.setdefault(json.dumps([call.function, call.arguments, call.error]), []).append(call)
        calls = [
            asdict(same[-1])
            | {"times": len(same), "microseconds": round(median(one.microseconds for one in same), 1)}
            for same in asked.values()
        ]
        file = folder / "nvml.json"
        file.write_text(json.dumps(about | {"calls": calls}, indent=1) + "\n")
        return file

    def _keep(self, function: str, arguments: Any, answer: Any, error: int | None, began: float) -> None:
        microseconds = (time.perf_counter() - began) * 1e6
        told = [one for one in map(plain, arguments) if one is not None and not isinstance(one, dict)]
        self.calls.append(Call(function, told, answer, error, microseconds))


def plain(value: Any) -> Any:
    """Returns what JSON can hold of an answer; None for a pointer."""
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
    if "metrics" in found:  # of a hundred and more those that were asked for
        found["metrics"] = list(found["metrics"][: found["numMetrics"]])
    return found


def _pointer(value: Any) -> bool:
    return hasattr(value, "contents")
