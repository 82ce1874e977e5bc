"""What hardware can do at most. A reading beyond it is an error of a driver or firmware, whoever reports it.

The bounds are generous, two to four times what is on sale, so that they hold for hardware of the next years;
errors are not near them: NVML has reported 3.7 MW (flightlessmango/MangoHud#2144), amdgpu 65535 % and
4,294 W, sensors 65535 degrees. A value that is out of bounds is absent, and the gap says so.
"""

from __future__ import annotations

from typing import NamedTuple


class Bound(NamedTuple):
    """The values that a reading can have.

    Attributes:
        least: smaller values are not believed.
        most: larger values are not believed.
        unit: their unit, for messages.
    """

    least: float
    most: float
    unit: str

    def holds(self, value: float) -> bool:
        """True if a value can be true."""
        return self.least <= value <= self.most

    def why(self) -> str:
        """Returns the reason for a missing value, without the value, which may change at every tick."""
        return f"it is not between {self.least:g} and {self.most:g} {self.unit}, so it cannot be true"


PERCENT = Bound(0, 100, "%")
# NVIDIA B300: 1,400 W; AMD MI355X: 1,400 W. https://resources.nvidia.com/en-us-blackwell-architecture
GPU_WATTS = Bound(0, 2_500, "W")
# Power may exceed its limit while the limit takes effect, by transients of up to twice the limit (ATX 3.0).
POWER_LIMIT_PERCENT = Bound(0, 300, "%")
# Chips shut down before 125 degrees. A machine that stands in the cold may read less than 0.
CELSIUS = Bound(-50, 200, "degrees Celsius")
# The fastest clocks of GPUs and their memory: 3 GHz, and 16 GHz for GDDR6X as drivers count it.
GPU_MEGAHERTZ = Bound(0, 20_000, "MHz")
# AMD MI355X: 288 GB; NVIDIA B300: 288 GB.
GPU_BYTES = Bound(0, 2**44, "bytes")
# The largest machines on sale have 64 TB (SAP HANA, HPE Compute Scale-up Server 3200).
HOST_BYTES = Bound(0, 2**50, "bytes")
THREADS = 2**22  # PID_MAX_LIMIT of include/linux/threads.h
OPEN_FILES = 2**40  # each process may have 2**30

# --- the most that a counter can grow in a second, for `counters` ---

FROM_ZERO = 0.01  # `Counters.from_zero` where the bound is far above ordinary use
# The largest processors are built for 500 W (AMD EPYC 9965, Intel Xeon 6980P), and briefly draw less than
# twice that.
PACKAGE_WATTS = 1_000.0
# A port of 800 Gb/s has 100 GB/s, and says so; what says nothing is virtual, and copies memory.
NETWORK_BYTES = 50e9
NETWORK_ERRORS = 1e8  # packets: 100 Gb/s of the smallest ones are 148 million
# Virtual machines on one host are faster than the speed that their cards show (VMware's vmxnet3: 10 Gb/s).
LINK_SPEED_FACTOR = 4
# PCI Express 6.0 with four lanes: 30 GB/s; arrays of such disks have names of their own (md, dm).
DISK_BYTES = 32e9
ARRAY_BYTES = 400e9
# NVIDIA ConnectX-8: 800 Gb/s per port.
INFINIBAND_BYTES = 200e9
# NVLink 5: 900 GB/s in each direction; PCI Express 6.0 with sixteen lanes: 121 GB/s.
NVLINK_BYTES = 4e12
PCIE_BYTES = 250e9
# HBM with a failing bank reports thousands of corrected errors within ten seconds.
ECC_ERRORS = 1_000.0
REMAPPED_ROWS = 2.0  # a GPU has 512 spare rows
OOM_KILLS = 100.0  # the kernel frees the memory of one before it kills the next
# The shortest period of a quota is a millisecond (kernel, Documentation/scheduler/sched-bwc.rst).
QUOTA_PERIODS = 1_000.0


def network_bytes(megabits: str) -> float:
    """Returns the most bytes per second of an interface.

    Args:
        megabits: its speed in Mb/s, from /sys/class/net/<interface>/speed; "-1" or "" if unknown.
    """
    speed = int(megabits) if megabits.isdecimal() else 0
    # A link that is being set up, or saves power, shows 10 Mb/s.
    return LINK_SPEED_FACTOR * max(speed, 1000) * 1e6 / 8 if speed else NETWORK_BYTES


def disk_bytes(name: str) -> float:
    """Returns the most bytes per second of a block device, by its name."""
    stacked = name.startswith(("dm-", "md", "loop", "ram", "zram", "bcache", "drbd", "zd"))
    return ARRAY_BYTES if stacked else DISK_BYTES
