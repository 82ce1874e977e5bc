"""Machines with graphics cards and processes that use them, for tests of the AMD and Intel collectors."""

from __future__ import annotations

from pathlib import Path

from small_machines import tree

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample

OWN = 8000


def card(slot: str, vendor: str, driver: str, *, name: str = "card0", minor: int = 128) -> dict[str, str]:
    """Returns the files that every card has."""
    device = f"sys/class/drm/{name}/device"
    return {
        f"{device}/vendor": f"{vendor}\n",
        f"{device}/uevent": f"DRIVER={driver}\nPCI_SLOT_NAME={slot}\n",
        f"{device}/drm/{name}/dev": "226:0\n",
        f"{device}/drm/renderD{minor}/dev": f"226:{minor}\n",
        f"{device}/power/runtime_status": "active\n",
    }


def stat(pid: int, parent: int) -> str:
    """Returns the stat of a process."""
    return f"{pid} (python) S {parent} 0 0 0 0 0 0 0 0 0 1 0 0 0 20 0 1 0 {pid} 0 100 0 0 0\n"


def machine(
    root: Path, *parts: dict[str, str], gpus: str = "visible", environ: dict[str, str] | None = None
) -> Host:
    """Returns a host with these files and its own process."""
    files = {f"proc/{name}/stat": stat(OWN, 1) for name in ("self", OWN)}
    host = tree(
        root,
        {"proc/loadavg": "0 0 0 1/1 8000\n", **files, **{k: v for part in parts for k, v in part.items()}},
    )
    return Host(root=root, environ=environ or {}, process_seconds=host.process_seconds, gpus=gpus)


def opens(root: Path, descriptor: int, node: str, *lines: str, process: object = "self") -> None:
    """Adds a GPU to the open files of a process: the link, and the fdinfo of the driver."""
    directory = root / "proc" / str(process)
    for name in ("fd", "fdinfo"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    link = directory / "fd" / str(descriptor)
    link.unlink(missing_ok=True)
    link.symlink_to(node)
    (directory / "fdinfo" / str(descriptor)).write_text("pos:\t0\n" + "".join(f"{line}\n" for line in lines))


def samples(collector: Collector, now: float) -> dict[str, Sample]:
    """Returns the samples of a collector at one moment, by key."""
    return {sample.key: sample for sample in collector.collect(now)}
