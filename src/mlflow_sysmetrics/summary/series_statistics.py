"""Statistics of one series in bounded memory: exact mean, minimum and maximum, and quantiles from a sketch.

The sketch is DDSketch (https://arxiv.org/abs/1908.10693, section 2) in its variant that merges the lowest
buckets: bucket k counts the seconds at values in (gamma^(k-1), gamma^k], so a quantile is known up to
`RELATIVE_ERROR`, and two sketches are merged by adding their buckets.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import zlib
from array import array

#: How far a quantile may be from a value of that rank, as a share of the value.
RELATIVE_ERROR = 0.02
#: Buckets of one sketch: 3 decades below the maximum. Lower values count as the lowest bucket, zeros apart.
MOST_BUCKETS = 176

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SCALE = 1 / math.log(_GAMMA)
_MIDDLE = 2 / (_GAMMA + 1)  # of a bucket, times its upper end: as far from one end as from the other
_SMALLEST = 1e-9  # values up to here count as zero; ours are percent, megabytes, watts
_HEADER = struct.Struct("<6dih")
_VERSION = "1."


class Statistics:
    """Statistics of the values of a series, each weighted with the seconds that it lasted.

    A value takes about a microsecond and no memory once its bucket exists; all of it is below 2 kB. Used by
    one thread at a time.

    Attributes:
        seconds: time that the values cover.
        min: lowest value; infinite without values.
        max: highest value; minus infinity without values.
    """

    __slots__ = (
        "_carry",
        "_counts",
        "_first",
        "_index",
        "_lost",
        "_total",
        "_value",
        "max",
        "min",
        "seconds",
    )

    def __init__(self) -> None:
        self.seconds = 0.0
        self.min = math.inf
        self.max = -math.inf
        # Sums carry what floating point cuts off (Kahan), so that a million small ticks lose nothing.
        self._total = self._carry = self._lost = 0.0
        # Seconds at zero, then those of the buckets from `_first` on.
        self._counts = array("d", (0.0,))
        self._first = 0
        self._value = math.nan  # the last value; most series repeat theirs, and then its bucket is known
        self._index = 0

    def add(self, value: float, seconds: float = 1.0) -> None:
        """Adds a value that lasted some seconds; one that is not finite, or lasted no time, is ignored.

        Args:
            value: in the unit of the series. Negative values count as zero in the quantiles.
            seconds: how long it lasted.
        """
        if not seconds > 0:
            return
        if value != self._value:
            if not math.isfinite(value):
                return
            self._index = self._index_of(value)
            self._value = value
            if value > self.max:
                self.max = value
            if value < self.min:
                self.min = value
        self._counts[self._index] += seconds
        part = value * seconds - self._carry
        total = self._total + part
        self._carry = (total - self._total) - part
        self._total = total
        part = seconds - self._lost
        total = self.seconds + part
        self._lost = (total - self.seconds) - part
        self.seconds = total

    def merge(self, other: Statistics) -> None:
        """Adds all that another one has seen."""
        if other.seconds <= 0:
            return
        counts = other._counts
        used = [index for index in range(1, len(counts)) if counts[index]]
        if used:
            self._place(other._first + used[-1] - 1)  # makes room: first above, then below
            self._place(other._first + used[0] - 1)
        mine, shift = self._counts, other._first - self._first
        for index in used:
            mine[max(index + shift, 1)] += counts[index]
        mine[0] += counts[0]
        self._value = math.nan  # buckets may have moved
        self._total, self._carry = _sum(self._total, self._carry, other._total - other._carry)
        self.seconds, self._lost = _sum(self.seconds, self._lost, other.seconds - other._lost)
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)

    @property
    def mean(self) -> float | None:
        """Mean over time; None without values."""
        return self._total / self.seconds if self.seconds else None

    def quantile(self, share: float) -> float | None:
        """Returns the value that is not exceeded for a share of the time; None without values.

        Args:
            share: 0 to 1, 0.95 for p95. The result is within `RELATIVE_ERROR` of the exact one.
        """
        if not self.seconds:
            return None
        left = share * math.fsum(self._counts)
        for index, seconds in enumerate(self._counts):
            left -= seconds
            if seconds and left <= seconds * 1e-9:  # the sum may be off by a rounding
                found = _GAMMA ** (self._first + index - 1) * _MIDDLE if index else 0.0
                return min(max(found, self.min), self.max)
        return self.max

    def share_up_to(self, limit: float) -> float | None:
        """Returns the share of time, 0 to 1, at values up to a limit; None without values.

        Exact for a limit of 1; otherwise values within `RELATIVE_ERROR` of it may be on the wrong side.
        """
        if not self.seconds:
            return None
        last = math.floor(math.log(limit) * _SCALE + 1e-9) - self._first + 1 if limit > _SMALLEST else 0
        return math.fsum(self._counts[: max(last, 0) + 1]) / math.fsum(self._counts)

    def to_text(self) -> str:
        """Returns all of it as a short word of ASCII characters (below 1.2 kB), for `from_text`."""
        numbers = (self.seconds, self._lost, self._total, self._carry, self.min, self.max)
        head = _HEADER.pack(*numbers, self._first, len(self._counts))
        counts = array("f", self._counts)  # 7 digits are more than a quantile shows
        return _VERSION + base64.b64encode(zlib.compress(head + _little(counts).tobytes(), 6)).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> Statistics:
        """Returns what `to_text` has written.

        Raises:
            ValueError: the text is damaged, or of a newer version.
        """
        found = cls()
        try:
            if not text.startswith(_VERSION):
                raise ValueError(f"must begin with {_VERSION!r}, got {text[:8]!r}")
            raw = zlib.decompress(base64.b64decode(text.removeprefix(_VERSION), validate=True))
            *numbers, first, length = _HEADER.unpack_from(raw)
            counts = array("f", raw[_HEADER.size :])
        except (zlib.error, binascii.Error, struct.error) as error:
            raise ValueError(
                f"statistics must be a text of to_text(), got {text[:8]!r}...: {error}"
            ) from error
        if not 1 <= length == len(counts) <= MOST_BUCKETS + 1:
            raise ValueError(f"statistics must have 1 to {MOST_BUCKETS + 1} buckets, got {length}")
        found.seconds, found._lost, found._total, found._carry, found.min, found.max = numbers
        found._first, found._counts = first, array("d", _little(counts))
        return found

    def _index_of(self, value: float) -> int:
        """Returns the place of a value's bucket, which is made if there is none."""
        if value <= _SMALLEST:
            return 0
        # A power of gamma belongs to its own bucket.
        return self._place(math.ceil(math.log(value) * _SCALE - 1e-9))

    def _place(self, key: int) -> int:
        """Returns the place of the bucket with a number, which is made if there is none."""
        counts = self._counts
        if len(counts) == 1:
            self._first = key
        above = key - (self._first + len(counts) - 2)
        if above > 0:
            excess = len(counts) - 1 + above - MOST_BUCKETS
            if excess > 0:  # merge the lowest
                gone = counts[1 : excess + 1]
                del counts[1 : excess + 1]
                self._first = key - MOST_BUCKETS + 1
                counts.extend([0.0] * (MOST_BUCKETS + 1 - len(counts)))
                counts[1] += math.fsum(gone)
            else:
                counts.extend([0.0] * above)
        elif key < self._first:
            below = min(self._first - key, MOST_BUCKETS + 1 - len(counts))
            counts[1:1] = array("d", bytes(8 * below))
            self._first -= below
        return max(key - self._first, 0) + 1


def _sum(total: float, carry: float, more: float) -> tuple[float, float]:
    part = more - carry
    result = total + part
    return result, (result - total) - part


def _little(values: array[float]) -> array[float]:
    """Returns the values with the bytes of a little-endian machine, or back."""
    if struct.pack("=h", 1) != struct.pack("<h", 1):
        values = values[:]
        values.byteswap()
    return values
