"""Which number a GPU bears in the keys: ``gpu_0_...``.

NVIDIA's visible devices have CUDA's ordinals, from 0. Devices of other vendors on the same host follow them,
in the order in which their collectors are read, so that no key stands for two devices.
"""

from __future__ import annotations


class GpuOrdinals:
    """Hands out ranges of ordinals, one per vendor, for the life of the process."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def first(self, vendor: str, count: int) -> int:
        """Returns the first ordinal of a vendor's devices.

        Args:
            vendor: "nvidia", "amd", "intel", "apple"; the same vendor keeps its place when it asks again.
            count: how many devices it has now.
        """
        self._counts[vendor] = max(count, self._counts.get(vendor, 0))
        before = list(self._counts)[: list(self._counts).index(vendor)]
        return sum(self._counts[other] for other in before)
