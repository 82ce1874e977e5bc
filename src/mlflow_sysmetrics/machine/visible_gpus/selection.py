"""What a host's GPUs are called and which of them were chosen, in words that need no vendor's library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SliceId:
    """One MIG device: a compute instance of a GPU instance of a GPU.

    Attributes:
        uuid: "MIG-...", as ``nvidia-smi -L`` lists it.
        gpu_instance: id of its GPU instance; -1 where it is not known.
        compute_instance: its id within the GPU instance; -1 where it is not known.
    """

    uuid: str
    gpu_instance: int = -1
    compute_instance: int = -1


@dataclass(frozen=True, slots=True)
class GpuId:
    """One physical GPU.

    Attributes:
        index: its place in the vendor's own order: NVML's, ROCm's, that of the PCI bus.
        uuid: as the vendor's tools write it; "" where it does not tell.
        slices: its MIG devices in NVML's order; none where it is not sliced.
        mig: it is in MIG mode, where CUDA can use nothing of it but its slices.
    """

    index: int
    uuid: str
    slices: tuple[SliceId, ...] = ()
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """One device that is watched.

    Attributes:
        ordinal: its number in the keys, ``gpu_<ordinal>_...``.
        index: the `GpuId.index` of the GPU.
        slice: which slice of it, or None for the whole GPU.
    """

    ordinal: int
    index: int
    slice: SliceId | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The devices that are watched.

    Attributes:
        chosen: in the order of their ordinals, each of which occurs once.
        doubt: why these may not be the devices, or not the ordinals, that the program sees; one clause.
        missing: what MLFLOW_SYSMETRICS_GPUS names and this host does not have, one clause each.
    """

    chosen: tuple[Chosen, ...] = ()
    doubt: str | None = None
    missing: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[str, ...]:
        """The doubt and what is missing, as `Collector.gaps` takes them."""
        return (self.doubt, *self.missing) if self.doubt else self.missing

    @property
    def places(self) -> int:
        """How many ordinals are taken: one more than the highest, as `GpuOrdinals.first` counts."""
        return self.chosen[-1].ordinal + 1 if self.chosen else 0
