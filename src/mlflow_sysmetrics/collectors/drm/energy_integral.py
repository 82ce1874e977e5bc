"""Energy of a device that tells its power only."""

from __future__ import annotations


class EnergyIntegral:
    """Adds up power over time: between two readings it is taken to be their mean."""

    def __init__(self) -> None:
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, now: float, watts: float) -> float:
        """Returns the joules since the first reading.

        Args:
            now: seconds of a clock that never goes back. Should it do so, nothing is added.
            watts: power at that moment.
        """
        if self._last is not None and now > self._last[0]:
            then, before = self._last
            self._joules += (before + watts) / 2 * (now - then)
        self._last = now, watts
        return self._joules

    def pause(self) -> None:
        """Notes that the device was off: nothing is known of the time until the next reading."""
        self._last = None
