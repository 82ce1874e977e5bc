"""Machines for tests of facts: files, environment, tools and NVML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fake_nvml import FakeNvml
from mlflow_sysmetrics.machine.command import CommandMissing, RunCommand
from mlflow_sysmetrics.machine.host import DiskUsage, Host

TOOL_OUTPUT = Path(__file__).parents[2] / "tool_output"

NO_NVML = FakeNvml(init_error=FakeNvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found"))


def printed(name: str) -> str:
    """Returns a recorded output such as "nvidia_smi/one_h200.csv"."""
    return (TOOL_OUTPUT / name).read_bytes().decode()


def machine(
    root: Path,
    files: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    nvml: FakeNvml = NO_NVML,
) -> Host:
    """Returns a host whose root holds `files`."""
    for path, text in (files or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())
    free = DiskUsage(total=100_000_000_000, used=57_655_000_000, free=42_345_000_000)
    return Host(
        root=root,
        environ=environ or {},
        disk_usage=lambda _: free,
        has_nvml=lambda: nvml is not NO_NVML,
        load_nvml=lambda: nvml,
    )


def tools(**answers: str | Exception) -> RunCommand:
    """Returns a runner with these tools, by name without suffix; others are missing."""

    def run(command: Sequence[str]) -> str:
        tool = command[0].replace("\\", "/").rpartition("/")[2].removesuffix(".exe")
        answer: Any = answers.get(tool.replace("-", "_"), CommandMissing(f"{tool} is not installed"))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    return run
