"""What the sources of facts return, and how a value becomes the text of a tag."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mlflow_sysmetrics import errors

# MLflow 2 stores cut or reject longer tag values; every store and version accepts 250.
LONGEST_VALUE = 249


class Cores(NamedTuple):
    """CPUs: `physical` and `effective` (what this job may use) are None if unknown."""

    logical: int
    physical: int | None = None
    effective: float | None = None


class Memory(NamedTuple):
    """Bytes of the whole host, and of the limit on this job (None without one)."""

    total_bytes: int
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU that the job may use; None means unknown.

    Attributes:
        name: model, with the MIG profile for a slice; "unknown ... GPU" for one that cannot be read.
        memory_bytes: its own memory.
        unified: True if it has no memory of its own and uses the host's.
        uuid: the UUID as the vendor's tools write it.
        driver: version of its driver.
        index: its position in the vendor's own order, for instance NVML's; a slice has the index of its GPU.
    """

    name: str
    memory_bytes: int | None = None
    unified: bool = False
    uuid: str | None = None
    driver: str | None = None
    index: int | None = None


class GpuReport(NamedTuple):
    """What one source, or all of them, found.

    Attributes:
        gpus: the watched GPUs, in the order of their ordinals.
        cuda: newest CUDA version that the driver supports.
        problems: what could not be determined, one short clause each.
        conclusive: True if no other source needs to be asked, even if there are no GPUs.
    """

    gpus: tuple[Gpu, ...] = ()
    cuda: str | None = None
    problems: tuple[str, ...] = ()
    conclusive: bool = False


# No machine and no GPU on sale has a sixteenth of it. The bounds of the collectors are the same.
MOST_HOST_BYTES = 2**50
MOST_GPU_BYTES = 2**44
UNKNOWN = "unknown"  #: keeps the place of a GPU's value in a list


def readable(text: str | None) -> str | None:
    """Returns a driver's text; None for a missing one, or one that is not text: the driver left garbage."""
    return text if text and text.isprintable() and "\ufffd" not in text else None


def gigabytes(count_bytes: int) -> str:
    """Returns bytes as GB (1e9) with two decimals."""
    return f"{count_bytes / 1e9:.2f}"


def number(value: float) -> str:
    """Returns a count of cores: "2", "1.5", never below "0.01"."""
    return f"{max(round(value, 2), 0.01):g}"


def shortened(value: str) -> str:
    """Returns `value` on one line, without unprintable characters, short enough for a tag."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    return errors.shortened(line, LONGEST_VALUE)


def joined(items: Iterable[str], separator: str) -> str:
    """Returns `items` in one value; items that do not fit are counted: "a,b,+6 more"."""
    parts = list(items)
    value = separator.join(parts)
    kept = len(parts)
    while len(value) > LONGEST_VALUE and kept > 1:
        kept -= 1
        value = separator.join([*parts[:kept], f"+{len(parts) - kept} more"])
    return shortened(value)
