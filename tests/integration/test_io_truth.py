"""Disk and network metrics, compared with the kernel and psutil over the same interval."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
import pytest

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.disk_io_linux import DiskIoLinux
from mlflow_sysmetrics.collectors.network_linux import NetworkLinux
from mlflow_sysmetrics.machine.host import Host

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")

MEGABYTE = 1_000_000
ROUNDING = 1e-6  # of a rate multiplied by its seconds


Count = Callable[[], float]


def over(
    make: Callable[[], Collector], work: Callable[[], None], counts: Mapping[str, Count]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Does work between two readings of a collector, and counts independently.

    Other programs may use disk and network at any moment. So the counters are read before and after each of the
    two readings, and the collector's result must lie between the two differences. The collector is created
    between them too, because it may count from then on.

    Returns:
        Totals, and rates converted to megabytes; for each counter the smallest and largest possible difference.
    """

    def counted() -> dict[str, float]:
        return {name: count() for name, count in counts.items()}

    before_first = counted()
    collector = make()
    list(collector.collect(time.monotonic()))
    after_first = counted()
    began = time.monotonic()
    work()
    time.sleep(max(0.0, 0.2 - (time.monotonic() - began)))  # the shortest time for a rate
    before_last = counted()
    samples = list(collector.collect(time.monotonic()))
    after_last = counted()
    found = {sample.key: sample.value * (sample.span or 1.0) for sample in samples}
    return found, {
        name: (before_last[name] - after_first[name], after_last[name] - before_first[name])
        for name in counts
    }


def disk_of(path: Path) -> str:
    """Returns the name of the disk that holds a path, determined without the collector."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    directory = Path("/sys/dev/block", number)
    if not directory.exists():
        pytest.skip(f"{path} is not on a block device ({number} is not in /sys/dev/block)")
    directory = directory.resolve()
    return directory.parent.name if (directory / "partition").exists() else directory.name


def sectors_written(disk: str) -> int:
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[2] == disk:
            return int(fields[9])
    raise LookupError(f"/proc/diskstats has no line for {disk}")


def write(path: Path, megabytes: int) -> None:
    """Writes incompressible data, and waits until it is on the disk."""
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MEGABYTE))
        file.flush()
        os.fsync(file.fileno())


def test_bytes_written_to_a_disk_match_diskstats(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    counts = {"written": lambda: sectors_written(disk) * 512 / MEGABYTE}
    host = Host(working_directory=lambda: str(tmp_path))
    found, counted = over(lambda: DiskIoLinux(host), lambda: write(tmp_path / "file", 64), counts)
    least, most = counted["written"]
    assert least >= 60
    assert least - ROUNDING <= found["disk_write_megabytes_per_second"] <= most + ROUNDING


def test_a_writing_disk_is_busy(tmp_path: Path) -> None:
    disk_of(tmp_path)
    collector = DiskIoLinux(Host(working_directory=lambda: str(tmp_path)))
    list(collector.collect(time.monotonic()))
    write(tmp_path / "file", 64)
    time.sleep(0.2)
    (busy,) = (
        sample for sample in collector.collect(time.monotonic()) if sample.key == "disk_busy_percentage"
    )
    assert 0 < busy.value <= 100


def transfer(megabytes: int) -> None:
    """Sends bytes over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()

        def send() -> None:
            with sender:
                sender.sendall(bytes(megabytes * MEGABYTE))

        thread = threading.Thread(target=send)
        thread.start()
        with receiver:
            while receiver.recv(MEGABYTE):
                pass
        thread.join()


def bytes_by_psutil() -> dict[str, tuple[int, int]]:
    """Returns bytes received and sent by each interface that has an address and is not a bridge."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    addressed = [
        name
        for name, found in psutil.net_if_addrs().items()
        if socket.AF_INET in {one.family for one in found}
    ]
    return {
        name: (counters[name].bytes_recv, counters[name].bytes_sent)
        for name in addressed
        if name in counters and not Path("/sys/class/net", name, "bridge").exists()
    }


def test_network_bytes_match_psutil_without_loopback() -> None:
    names = [name for name in bytes_by_psutil() if name != "lo"]

    def moved(index: int, names: Iterable[str] = names) -> float:
        counted = bytes_by_psutil()
        return sum(counted[name][index] for name in names) / MEGABYTE

    counts = {
        "receive": lambda: moved(0),
        "transmit": lambda: moved(1),
        "loopback": lambda: moved(0, ["lo"]),
    }
    found, counted = over(lambda: NetworkLinux(Host()), lambda: transfer(32), counts)
    assert counted["loopback"][0] >= 32
    for direction in ("receive", "transmit"):
        total = found[f"network_{direction}_megabytes"]
        least, most = counted[direction]
        assert least - ROUNDING <= total <= most + ROUNDING
        assert found[f"network_{direction}_megabytes_per_second"] == pytest.approx(total, rel=0.001, abs=1e-3)
