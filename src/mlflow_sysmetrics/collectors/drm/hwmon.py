"""The sensors of one card, files of /sys with one number each, and its energy.

https://docs.kernel.org/hwmon/sysfs-interface.html

Energy comes from a counter of microjoules, or from power over time.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.counters import Counters
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples
from mlflow_sysmetrics.collectors.kernel_files import count, listed, text_of
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import words_for
from mlflow_sysmetrics.samples import Sample

MICRO = 1e-6
MILLI = 1e-3
_MICROJOULES = 1e6
_SECONDS_PER_HOUR = 3600.0
# On each read the driver adds up a 32-bit register in steps of 2^-14 J: if it is not read for as long as the
# register takes to fill at 1 kW, it may have wrapped unseen (kernel, i915_hwmon.c and xe_hwmon.c).
_REGISTER_UJ = 2**32 * 1_000_000 // 2**14
_MOST_MICROWATTS = bounds.PACKAGE_WATTS * _MICROJOULES


class Hwmon:
    """The sensors of a card, by file name.

    Args:
        device: directory of the PCI device.
    """

    def __init__(self, device: str) -> None:
        self._directory = ""
        for name in listed(f"{device}/hwmon"):
            directory = f"{device}/hwmon/{name}"
            # i915 has one directory for the whole card, "i915", and one for each of its tiles, "i915_gt0".
            if "_gt" not in text_of(f"{directory}/name"):
                self._directory = directory
                break
        self._names = frozenset(listed(self._directory)) if self._directory else frozenset()

    def __bool__(self) -> bool:
        return bool(self._names)

    def path(self, *names: str) -> str:
        """Returns the path of the first of some files that the card has; "" if it has none."""
        return next((f"{self._directory}/{name}" for name in names if name in self._names), "")

    def labelled(self, kind: str, *labels: str) -> str:
        """Returns the path of the input with the first of some labels that the card has; "" if it has none.

        Args:
            kind: "temp", "freq".
            labels: contents of the label's file, best first.
        """
        found = {
            text_of(f"{self._directory}/{name}"): name.removesuffix("_label") + "_input"
            for name in sorted(self._names)
            if name.startswith(kind) and name.endswith("_label")
        }
        return self.path(*(found[label] for label in labels if label in found))


def reading(path: str, most: float | None = None) -> int | None:
    """Returns the number in a file; None if there is no such file, or no number in it now.

    Args:
        path: "" for a file that does not exist.
        most: larger numbers are rejected.
    """
    if not path:
        return None
    try:
        number = count(read_short(path))
    except (OSError, ValueError):
        return None
    return None if most is not None and number > most else number


def why_silent(path: str) -> str:
    """Returns why `reading` finds no number in a file, as a clause."""
    try:
        count(read_short(path))
    except OSError as error:
        if error.errno == errno.EACCES:
            return "no permission"
        # The empty path raises ENOENT too; amdgpu answers EPERM while it resets the device.
        return "not supported by this device" if error.errno == errno.ENOENT else words_for(error)
    except ValueError:
        return "the file holds no number"
    return "out of range"


class EnergyCounter:
    """Follows the counter of one card.

    Args:
        path: the counter; "" if the card has none.
        samples: makes the card's samples.
    """

    def __init__(self, path: str, samples: GpuSamples) -> None:
        self._path = path
        self._samples = samples
        self._lap = Lap()
        self._joules = 0.0
        self._counter: Counters | None = None

    def collect(self, now: float, limit: int | None) -> Iterator[Sample]:
        """Yields the energy so far, and the power since the last reading that was old enough.

        Args:
            now: seconds of a clock that never goes back.
            limit: power limit in microwatts.
        """
        count = reading(self._path)
        if not count:  # a counter at 0 does not work
            return  # the next reading includes what was missed
        if self._counter is None:
            self._counter = Counters(_MOST_MICROWATTS)
            self._counter.follow((count,), now)
        span = self._lap.seconds(now)
        if span is not None:
            if (now - self._counter.read_at) * _MOST_MICROWATTS >= _REGISTER_UJ:
                self._counter.restart((count,), now)
                return
            step = self._counter.follow((count,), now)
            if step is None or not step.span:
                return
            joules = step.grown[0] / _MICROJOULES
            self._joules += joules
            yield self._samples.of(catalogue.GPU_POWER_USAGE, joules / step.span, span)
            if limit:
                # The limit holds on average, so power exceeds it only briefly.
                share = min(PERCENT * joules * _MICROJOULES / step.span / limit, PERCENT)
                yield self._samples.of(catalogue.GPU_POWER_USAGE_PERCENTAGE, share, span)
        yield self._samples.of(catalogue.GPU_ENERGY, self._joules / _SECONDS_PER_HOUR)

    def rest(self) -> None:
        """Records that the card is off: the energy of that time must not count as power afterwards."""
        self._lap = Lap()
        self._counter = None


class EnergyIntegral:
    """Adds up power over time, for a device without a counter; between two readings power is their mean."""

    def __init__(self) -> None:
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, now: float, watts: float) -> float:
        """Returns the joules since the first reading.

        Args:
            now: seconds of a clock that never goes back. If it does, nothing is added.
            watts: power at that moment.
        """
        if self._last is not None and now > self._last[0]:
            then, before = self._last
            self._joules += (before + watts) / 2 * (now - then)
        self._last = now, watts
        return self._joules

    def pause(self) -> None:
        """Records that the device was off: the time until the next reading does not count."""
        self._last = None
