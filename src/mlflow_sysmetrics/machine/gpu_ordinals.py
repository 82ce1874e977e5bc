"""The numbers of GPUs in the keys: ``gpu_0_...``.

NVIDIA's visible devices have CUDA's ordinals, from 0: they are looked for first. Devices of other vendors on
the same host follow, in the order in which they are found, so that no key refers to two devices. A driver
that is loaded later than another vendor's finds its numbers taken.
"""

from __future__ import annotations


class GpuOrdinals:
    """Assigns ranges of ordinals, one per vendor, for the life of the process."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ordinals: dict[str, int] = {}
        self._uuids: dict[int, str] = {}

    def first(self, vendor: str, count: int) -> int:
        """Returns the first ordinal of a vendor's devices.

        Args:
            vendor: "nvidia", "amd", "intel", "apple"; a vendor keeps its range at later calls.
            count: the current number of its devices.
        """
        self._counts[vendor] = max(count, self._counts.get(vendor, 0))
        before = list(self._counts)[: list(self._counts).index(vendor)]
        return sum(self._counts[other] for other in before)

    def assign(self, uuid: str, ordinal: int) -> None:
        """Records the ordinal of a device, for collectors that know it by its UUID.

        Args:
            uuid: the UUID as NVML writes it, "GPU-..." or "MIG-...".
            ordinal: the number in the keys.
        """
        before = self._uuids.pop(ordinal, None)  # from a run with other devices
        if before is not None:
            self._ordinals.pop(_bare(before), None)
        self._ordinals[_bare(uuid)] = ordinal
        self._uuids[ordinal] = uuid

    def of(self, uuid: str) -> int | None:
        """Returns the ordinal of a watched device.

        Args:
            uuid: with or without the prefix "GPU-" or "MIG-", in any letter case.
        """
        return self._ordinals.get(_bare(uuid))

    def uuid(self, ordinal: int) -> str | None:
        """Returns the UUID of the device with an ordinal."""
        return self._uuids.get(ordinal)


def _bare(uuid: str) -> str:
    # CUDA and torch write only the sixteen bytes, in either case.
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")
