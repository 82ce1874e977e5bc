"""The CPU's name and its physical cores, from the text of /proc/cpuinfo.

The kernel writes that file differently for each architecture: x86 names the model; Arm gives the numbers of
the implementer and of the part; POWER, MIPS, RISC-V and small boards have keys of their own.
Numbers:  the MIDR_EL1 register, in arch/arm64/include/asm/cputype.h of Linux and in util-linux's lscpu.
Check:    cat /proc/cpuinfo
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.errors import Unavailable

_ARM = "0x41"

_PART_NAMES = {
    (_ARM, "0xd03"): "Arm Cortex-A53",
    (_ARM, "0xd05"): "Arm Cortex-A55",
    (_ARM, "0xd07"): "Arm Cortex-A57",
    (_ARM, "0xd08"): "Arm Cortex-A72",
    (_ARM, "0xd0b"): "Arm Cortex-A76",
    (_ARM, "0xd0c"): "Arm Neoverse-N1",
    (_ARM, "0xd40"): "Arm Neoverse-V1",
    (_ARM, "0xd41"): "Arm Cortex-A78",
    (_ARM, "0xd42"): "Arm Cortex-A78AE",
    (_ARM, "0xd44"): "Arm Cortex-X1",
    (_ARM, "0xd49"): "Arm Neoverse-N2",
    (_ARM, "0xd4f"): "Arm Neoverse-V2",
    (_ARM, "0xd83"): "Arm Neoverse-V3AE",
    (_ARM, "0xd84"): "Arm Neoverse-V3",
    (_ARM, "0xd85"): "Arm Cortex-X925",
    (_ARM, "0xd87"): "Arm Cortex-A725",
    (_ARM, "0xd8e"): "Arm Neoverse-N3",
    ("0x46", "0x001"): "Fujitsu A64FX",
    ("0x48", "0xd01"): "HiSilicon Kunpeng-920",
    ("0x4e", "0x004"): "NVIDIA Carmel",
    ("0xc0", "0xac3"): "Ampere-1",
    ("0xc0", "0xac4"): "Ampere-1a",
}

_IMPLEMENTERS = {
    _ARM: "Arm",
    "0x42": "Broadcom",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0xc0": "Ampere",
}

# In the order in which they are asked: POWER, MIPS, RISC-V, 32-bit Arm boards.
_OTHER_KEYS = ("cpu", "cpu model", "uarch", "hardware")


def parse_cpu_model(text: str) -> str:
    """Returns the CPU's name; kinds of core that differ are joined by " + ".

    Raises:
        Unavailable: the text names no CPU.
    """
    blocks = list(_blocks(text))
    for name in _distinct(block.get("model name", "") for block in blocks):
        return name
    parts = _distinct(_arm_name(block) for block in blocks)
    if parts:
        return " + ".join(parts)
    for key in _OTHER_KEYS:
        for name in _distinct(block.get(key, "") for block in blocks):
            return name
    raise Unavailable("/proc/cpuinfo names no model")


def parse_physical_cores(text: str) -> int | None:
    """Returns the number of distinct (socket, core) pairs; None where the text does not tell them."""
    cores = {
        (block.get("physical id", "0"), block["core id"]) for block in _blocks(text) if "core id" in block
    }
    return len(cores) or None


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yields the lines of each processor, keys in lower case."""
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        yield {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


def _arm_name(block: dict[str, str]) -> str:
    implementer, part = block.get("cpu implementer", ""), block.get("cpu part", "")
    if not implementer or not part:
        return ""
    maker = _IMPLEMENTERS.get(implementer, f"implementer {implementer}")
    return _PART_NAMES.get((implementer, part), f"{maker} part {part}")


def _distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))
