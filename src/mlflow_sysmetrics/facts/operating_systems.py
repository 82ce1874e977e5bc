"""The contract of the modules `linux`, `macos` and `windows`, and the choice between them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from mlflow_sysmetrics.facts.gpus import GpuSource
from mlflow_sysmetrics.facts.values import Cores, Memory
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host


class OperatingSystem(Protocol):
    """What each of the modules provides; every function raises `Unavailable` with the reason."""

    @property
    def GPU_SOURCES(self) -> Sequence[GpuSource]:  # noqa: N802 - a constant of each module
        """Sources of GPUs to ask after NVML, in this order."""

    def cpu_model(self, host: Host, run: RunCommand) -> str:
        """Returns the CPU's name as its maker writes it."""

    def cores(self, host: Host) -> Cores:
        """Returns the number of CPUs, and how many of them this job may use."""

    def memory(self, host: Host) -> Memory:
        """Returns the memory of the host, and the limit on this job."""

    def watch_limits(self, host: Host) -> None:
        """Has `Host.files` notice changes of what `memory` and `cores` take into account."""

    def os_name(self, host: Host) -> str:
        """Returns the operating system's name and version, as its maker writes them."""

    def platform_name(self) -> str:
        """Returns what `platform.platform()` returns, without starting a process."""

    def container(self, host: Host) -> str | None:
        """Returns the kind of container that this job runs in."""

    def cloud(self, host: Host) -> str | None:
        """Returns the cloud provider and, if the machine provides it, the instance type."""


def operating_system(platform: str = sys.platform) -> OperatingSystem:
    """Returns the module for `sys.platform`; an unknown Unix is read as far as it resembles Linux."""
    name = {"darwin": "macos", "win32": "windows"}.get(platform, "linux")
    return cast("OperatingSystem", import_module(f"mlflow_sysmetrics.facts.{name}"))


class Sources(NamedTuple):
    """Everything that a fact may read.

    Attributes:
        host: files, environment, disks and NVML of the machine.
        system: functions of the operating system.
        run: runs a command, within the budget of all commands.
    """

    host: Host
    system: OperatingSystem
    run: RunCommand
