"""What a container shares with its host, or may not do, changes none of our readings."""

from __future__ import annotations

import time

import pytest
from comparison import HOLD, MEBIBYTE, MEGABYTE, ONE_POINT, POINTS, WORK, check_cpu, check_memory, mean, spans
from sampled_containers import Sampled, Start

LIMITS = ["--memory=600m", "--cpus=0.5"]
# Sends a megabyte a second to the gateway of the network, which need not take it.
SEND = """
import socket, struct, time
lines = [line.split() for line in open("/proc/net/route")][1:]
gateway = next(struct.pack("<L", int(line[2], 16)) for line in lines if line[1] == "00000000")
target = socket.inet_ntoa(gateway), 9
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for _ in range(10):
        try:
            sender.sendto(bytes(1000), target)
        except ConnectionRefusedError:  # of the one before
            pass
    time.sleep(0.01)
"""


def check_all(container: Sampled) -> None:
    """Compares CPU, memory and processes of a container with these limits, whose processes are all ours."""
    began = time.time()
    points = container.wait_for(POINTS, "cpu_utilization_percentage", after=began)
    check_cpu(container, points, 0.5)
    check_memory(container, began, 600 * MEBIBYTE)
    processes = container.points("process_cpu_percentage", after=began)
    for begin, end, value in spans(processes):
        used = 100 * container.witness.rate(lambda reading: reading.cpu, begin, end)
        assert value == pytest.approx(used, abs=ONE_POINT)
    # The program, and the child that works; no process of the host.
    assert {value for _, value in container.points("process_children", after=began)} == {1}


CASES = {
    "ordinary": [],
    "the host's processes": ["--pid=host"],
    "the host's network": ["--network=host"],
    "no network": ["--network=none"],
    "the host's control groups": ["--cgroupns=host"],
    "a read-only root": ["--read-only"],
    "a read-only root with a directory for temporary files": ["--read-only", "--tmpfs=/tmp"],
    "a user without rights": ["--user=1000", "--cap-drop=ALL", "--security-opt=no-new-privileges"],
    "all of them": ["--pid=host", "--network=host", "--read-only", "--user=1000", "--cap-drop=ALL"],
}


@pytest.mark.parametrize("case", CASES)
def test_readings_are_those_of_the_container(start: Start, case: str) -> None:
    container = start(WORK.format(share=0.3), options=[*LIMITS, *CASES[case]])
    check_all(container)
    said = container.end()
    failing = {name: health for name, health in said["health"].items() if health.startswith("failing")}  # type: ignore[attr-defined]
    assert not failing
    # A journal needs a place to write to; the program is told if it has none.
    writable = not {"--read-only", "--user=1000"} & set(CASES[case])
    assert (said["journal_failed"] is None) is writable, said["journal_failed"]


def test_a_journal_in_a_volume_of_a_read_only_container(start: Start) -> None:
    container = start(
        options=["--read-only", "--user=1000", "--env=MLFLOW_SYSMETRICS_SPOOL_DIR=/store/spool"]
    )
    container.wait_for(2, "cpu_utilization_percentage")
    assert container.end()["journal_failed"] is None


NETWORKS = {"a bridge": ["--network=bridge"], "the host's": ["--network=host"]}


@pytest.mark.parametrize("network", NETWORKS)
def test_network_traffic_is_that_of_the_network_in_use(start: Start, network: str) -> None:
    sending = start(SEND, options=NETWORKS[network])
    began = time.time()
    points = sending.wait_for(POINTS, "network_transmit_megabytes", after=began)
    rates = sending.points("network_transmit_megabytes_per_second", after=began)
    time.sleep(0.2)  # the witness reads on, beyond the last point

    def sent(begin: float, end: float) -> float:
        return sending.witness.rate(lambda reading: reading.sent / MEGABYTE, begin, end)

    begin, end = points[0][0], points[-1][0]
    assert sent(begin, end) > 0.3
    shown = (points[-1][1] - points[0][1]) / (end - begin)
    assert shown == pytest.approx(sent(begin, end), rel=0.05, abs=0.05)
    # The host's network carries the bursts of other programs too, so only the same span has the same mean.
    measured = spans(rates)
    expected = sent(measured[0][0], measured[-1][1])
    assert mean(rates) == pytest.approx(expected, rel=0.05, abs=0.05)
    sending.end()


def test_without_a_network_there_is_no_traffic(start: Start) -> None:
    alone = start(options=["--network=none"])
    alone.wait_for(3, "cpu_utilization_percentage")
    assert {value for _, value in alone.points("network_transmit_megabytes")} <= {0}
    alone.end()


def test_memory_that_is_shared_with_nobody_counts_once(start: Start) -> None:
    """A page cache as large as the memory in use is not in the working set."""
    container = start(HOLD.format(megabytes=150), options=["--memory=600m"])
    began = time.time()
    container.wait_for(POINTS, "system_memory_usage_megabytes", after=began)
    check_memory(container, began, 600 * MEBIBYTE)
    container.end()
