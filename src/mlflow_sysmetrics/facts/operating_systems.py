"""What a fact is looked up in, and what each operating system must be able to tell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlflow_sysmetrics.facts import linux, macos, windows
from mlflow_sysmetrics.facts.values import Cores, GpuReport, Memory
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host

GpuSource = Callable[[Host, RunCommand], GpuReport]
"""One place that knows GPUs: an empty report where it is not installed, `Unavailable` where it fails."""


class OperatingSystem(Protocol):
    """The contract of `linux`, `macos` and `windows`; every function raises `Unavailable`, saying why."""

    @property
    def GPU_SOURCES(self) -> tuple[GpuSource, ...]:  # noqa: N802 - a constant of each module
        """Sources of GPUs to ask after NVML, in this order."""

    def cpu_model(self, host: Host, run: RunCommand) -> str:
        """Returns the CPU's name as its maker writes it."""

    def cores(self, host: Host) -> Cores:
        """Returns how many CPUs there are, and how many this job may use."""

    def memory(self, host: Host) -> Memory:
        """Returns the memory of the host, and the limit on this job."""

    def os_name(self, host: Host) -> str:
        """Returns the operating system's name and version, as its maker writes them."""

    def platform_name(self) -> str:
        """Returns what `platform.platform()` does, without starting a process."""

    def container(self, host: Host) -> str | None:
        """Returns what kind of container this job runs in."""

    def cloud(self, host: Host) -> str | None:
        """Returns the cloud provider and, where the machine tells it, the instance type."""


def operating_system(platform: str = sys.platform) -> OperatingSystem:
    """Returns the module for `sys.platform`; an unknown Unix is read as far as it resembles Linux."""
    if platform == "darwin":
        return macos
    if platform == "win32":
        return windows
    return linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that a fact may ask.

    Attributes:
        host: files, environment, disks and NVML of the machine.
        system: the operating system's own ways.
        run: runs a command, within the budget of all commands.
    """

    host: Host
    system: OperatingSystem
    run: RunCommand
