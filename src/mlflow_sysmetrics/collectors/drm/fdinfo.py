"""What the text of /proc/<pid>/fdinfo/<fd> says of a GPU that a process has open.

https://docs.kernel.org/gpu/drm-usage-stats.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mlflow_sysmetrics.collectors.fields import WORD

_UNITS = {b"": 1, b"KiB": 1024, b"MiB": 1024**2, b"ns": 1}
# What a client has in a region of memory, the last one counts: all that may lie there, what does by its old
# name (amdgpu), what does by the name of Linux 6.5 and newer.
_MEMORY = (b"drm-total-", b"drm-memory-", b"drm-resident-")


class DrmClient(NamedTuple):
    """One opening of a GPU: file descriptors that were duplicated or inherited share it.

    Attributes:
        slot: place of the GPU on the PCI bus; "" where the driver does not tell.
        identity: tells it from the GPU's other clients.
        memory: bytes that it holds, by region.
        busy: nanoseconds that engines have worked for it, by class of engine.
        cycles: cycles that engines have worked for it.
        total_cycles: cycles that have passed meanwhile.
        capacity: engines in a class; one where it is not in here.
    """

    slot: str
    identity: int
    memory: Mapping[str, int]
    busy: Mapping[str, int]
    cycles: Mapping[str, int]
    total_cycles: Mapping[str, int]
    capacity: Mapping[str, int]


def parse_fdinfo(text: bytes) -> DrmClient | None:
    """Returns the client of a GPU that a file descriptor stands for; None where it stands for none."""
    words: dict[bytes, str] = {}
    numbers: dict[bytes, int] = {}
    # A line without its end was cut off.
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        name, _, value = line.partition(b":")
        if name.startswith(b"drm-"):
            first, _, unit = value.strip().partition(b" ")
            words[name] = first.decode("ascii", "replace")
            if first.isdigit() and len(first) <= len(str(WORD)) and unit.strip() in _UNITS:
                numbers[name] = int(first) * _UNITS[unit.strip()]
    identity = numbers.get(b"drm-client-id")
    if b"drm-driver" not in words or identity is None:
        return None
    total_cycles = _by_suffix(b"drm-total-cycles-", numbers)
    memory: dict[str, int] = {}
    for prefix in _MEMORY:
        memory |= _by_suffix(prefix, numbers)
    for engine in total_cycles:
        del memory[f"cycles-{engine}"]  # "drm-total-" begins it like a region's size
    capacity = _by_suffix(b"drm-engine-capacity-", numbers)
    busy = _by_suffix(b"drm-engine-", numbers)
    return DrmClient(
        slot=words.get(b"drm-pdev", ""),
        identity=identity,
        memory=memory,
        busy={engine: spent for engine, spent in busy.items() if not engine.startswith("capacity-")},
        cycles=_by_suffix(b"drm-cycles-", numbers),
        total_cycles=total_cycles,
        capacity={engine: number for engine, number in capacity.items() if number},
    )


def _by_suffix(prefix: bytes, numbers: Mapping[bytes, int]) -> dict[str, int]:
    return {
        name.removeprefix(prefix).decode("ascii", "replace"): number
        for name, number in numbers.items()
        if name.startswith(prefix)
    }
