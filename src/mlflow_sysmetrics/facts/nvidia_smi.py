"""NVIDIA GPUs through nvidia-smi, for hosts on which NVML does not load.

Source:  nvidia-smi --query-gpu, in NVML's order. This form does not include the CUDA version.
MIG:     this form lists no slices: a sliced GPU is shown as one.
Absent:  nvidia-smi is not installed, or prints "No devices were found".
Check:   nvidia-smi --query-gpu=name,uuid,memory.total,driver_version --format=csv,noheader,nounits
"""

from __future__ import annotations

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.values import MOST_GPU_BYTES, Gpu, GpuReport, readable
from mlflow_sysmetrics.machine.command import CommandFailed, CommandMissing, RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuId

_COMMAND = (
    "nvidia-smi",
    "--query-gpu=name,uuid,memory.total,driver_version",
    "--format=csv,noheader,nounits",
)
_NO_DEVICES = "No devices were found"
# Printed instead of a size for devices that share the host's memory (GB10, Thor, Orin).
_NO_OWN_MEMORY = ("[N/A]", "N/A", "[Not Supported]", "Not Supported")


NAMELESS = "unknown NVIDIA GPU"


def gpus(host: Host, run: RunCommand) -> GpuReport:
    """Returns the watched GPUs among those that nvidia-smi lists.

    Raises:
        Unavailable: it failed, or the device nodes exist but nvidia-smi does not.
    """
    try:
        listed = all_gpus(run)
    except CommandMissing as error:
        if (host.root / "dev/nvidiactl").exists():
            raise Unavailable("/dev/nvidiactl exists, but neither NVML nor nvidia-smi does") from error
        return GpuReport()
    except CommandFailed as error:
        if _NO_DEVICES in error.output:
            return GpuReport()
        raise
    selection = select_nvidia(
        host.environ,
        host.gpus,
        [GpuId(index, gpu.uuid or "") for index, gpu in enumerate(listed)],
        same_model=len({gpu.name for gpu in listed}) <= 1,
        driver=listed[0].driver if listed else None,
    )
    if listed and selection.gaps and not selection.chosen:
        raise Unavailable(f"nvidia-smi: {', '.join(selection.gaps)}")
    return GpuReport(
        gpus=tuple(listed[one.index] for one in selection.chosen),
        problems=selection.gaps if listed else (),
        conclusive=bool(selection.chosen),
    )


def all_gpus(run: RunCommand) -> tuple[Gpu, ...]:
    """Returns all GPUs that nvidia-smi lists, in NVML's order.

    Raises:
        Unavailable: it failed.
    """
    return parse_gpus(run(_COMMAND))


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Returns all GPUs in nvidia-smi's rows "name, uuid, MiB, driver".

    Raises:
        Unavailable: the text is not such a list.
    """
    if _NO_DEVICES in text:
        return ()
    gpus_found: list[Gpu] = []
    for line in text.strip().splitlines():
        fields = [field.strip() for field in line.rsplit(",", 3)]  # a name may contain a comma
        try:
            name, uuid, mebibytes, driver = fields
        except ValueError as error:
            raise Unavailable("nvidia-smi did not print a list of GPUs") from error
        size = int(mebibytes) * 2**20 if mebibytes.isdecimal() else 0
        memory_bytes = size if 0 < size <= MOST_GPU_BYTES else None
        unified = mebibytes in _NO_OWN_MEMORY
        place = len(gpus_found)
        gpus_found.append(
            Gpu(
                name=_known(name) or NAMELESS,
                memory_bytes=memory_bytes,
                unified=unified,
                uuid=_known(uuid),
                driver=_known(driver),
                index=place,
            )
        )
    if not gpus_found:
        raise Unavailable("nvidia-smi printed nothing")
    return tuple(gpus_found)


def _known(text: str) -> str | None:
    """Returns a value; None for "[N/A]", "[Unknown Error]", "[GPU requires reset]", "ERR!" and garbage."""
    return None if text.startswith("[") or text in ("N/A", "ERR!") else readable(text)
