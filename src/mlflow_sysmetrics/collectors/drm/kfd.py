"""AMD's compute devices in ROCm's order, which is not that of the PCI bus.

/sys/class/kfd/kfd/topology/nodes/<n>/properties describes a processor in lines of a name and a number; a node
with `simd_count` is a GPU. ROCm's device k is the k-th such node: each partition of an MI300 has its own, and
`drm_render_minor` is the number of the node in /dev/dri that opens it. In a container the kernel refuses
(EPERM) to describe devices that the container may not open, and ROCm does not count these.
https://github.com/torvalds/linux/blob/master/drivers/gpu/drm/amd/amdkfd/kfd_topology.c
"""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.collectors.kernel_files import listed, number_after
from mlflow_sysmetrics.collectors.presence import AMD_COMPUTE_NODES
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import Malformed, why_unread


class ComputeDevice(NamedTuple):
    """One GPU, or one partition of a GPU.

    Attributes:
        node: its name in /dev/dri, "renderD128".
        uuid: the UUID as ROCR_VISIBLE_DEVICES takes it, "GPU-e7e23432f77c7e0d"; "" if the device has none.
    """

    node: str
    uuid: str


def parse_properties(text: bytes) -> ComputeDevice | None:
    """Returns the GPU that the properties of a node describe; None if they describe a CPU.

    Raises:
        Malformed: they describe neither.
    """
    minor = number_after(b"drm_render_minor ", text)
    simds = number_after(b"simd_count ", text)
    if simds is None or (simds and not minor):
        raise Malformed("neither a CPU nor a GPU")
    if not simds:
        return None
    return ComputeDevice(f"renderD{minor}", uuid_of(number_after(b"unique_id ", text)))


def uuid_of(unique_id: int | None) -> str:
    """Returns a device's UUID as ROCm writes it; "" for a device without one."""
    return f"GPU-{unique_id:016x}" if unique_id else ""


def compute_devices(host: Host) -> list[ComputeDevice]:
    """Returns the GPUs that ROCm sees, in its order; none if the kernel has no amdkfd.

    Raises:
        Unavailable: a node cannot be parsed. Without it the following devices would have wrong numbers.
    """
    directory = str(host.root / AMD_COMPUTE_NODES)
    devices = []
    for name in sorted(filter(str.isdecimal, listed(directory)), key=int):
        try:
            device = parse_properties(read_short(f"{directory}/{name}/properties"))
        except PermissionError:  # not a device of this container
            continue
        except (OSError, ValueError) as error:
            raise Unavailable(why_unread(error, f"/{AMD_COMPUTE_NODES}/{name}/properties")) from error
        if device is not None:
            devices.append(device)
    return devices
