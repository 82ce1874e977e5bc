"""The sensors of one card: files of /sys with one number each.

https://docs.kernel.org/hwmon/sysfs-interface.html
"""

from __future__ import annotations

import errno

from mlflow_sysmetrics.collectors.kernel_files import count, listed, text_of
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import words_for

MICRO = 1e-6
MILLI = 1e-3


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
