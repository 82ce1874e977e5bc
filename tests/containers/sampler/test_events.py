"""What happens to a container while it runs: it is paused, restarted, or runs out of memory."""

from __future__ import annotations

import time

import pytest
from comparison import MEBIBYTE, ONE_POINT, POINTS, WORK, check_memory, spans
from sampled_containers import PATIENCE_SECONDS, Sampled, Start, in_environment

ALLOCATE = "held = bytearray(b'x') * 10**9"
# Fills the memory slowly enough that the last points before the end show it, and ends once something was killed.
LEAK = """
import time
kills = lambda: [line for line in open(path) if line.startswith("oom_kill ")]
for path in ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events"):
    try:
        before = kills()
        break
    except OSError:
        pass
held = []
while kills() == before:
    held.append(bytearray(b"x") * 1_000_000)
    time.sleep(0.1)
"""
KILLED = 137
PAUSED_SECONDS = 6
ONE_INTERVAL = 1.5


def test_a_pause_is_a_gap(start: Start) -> None:
    """While a container is paused there are no points; afterwards there is one per second again, and true rates."""
    container = start(WORK.format(share=0.4), options=["--cpus=0.5", "--memory=600m"])
    container.wait_for(3, "cpu_utilization_percentage", after=time.time())
    began = time.time()
    container.docker("pause", container.name)
    paused = time.time()
    time.sleep(PAUSED_SECONDS)  # the length of the pause is what this is about
    resumed = time.time()
    container.docker("unpause", container.name)
    container.wait_for(POINTS, "cpu_utilization_percentage", after=resumed)
    time.sleep(0.2)
    for key in sorted(container.series(after=began)):
        times = [at for at, _ in container.points(key, after=began)]
        assert not [at for at in times if paused < at < resumed], key
        late = [at for at in times if at >= resumed]
        # What was missed is not made up for: one point at once, then those of the schedule.
        assert len(late) <= late[-1] - resumed + 2, key
    points = container.points("cpu_utilization_percentage", after=began - 2)
    assert max(end - begin for begin, end, _ in spans(points)) > PAUSED_SECONDS - ONE_INTERVAL
    for begin, end, value in spans(points):
        used = 100 * container.witness.rate(lambda reading: reading.cpu, begin, end) / 0.5
        assert value == pytest.approx(min(used, 100), abs=ONE_POINT)
    for key in ("disk_read_megabytes_per_second", "network_receive_megabytes_per_second"):
        assert all(0 <= value < 100 for _, value in container.points(key, after=began))
    container.end()


def test_kills_for_lack_of_memory_are_counted(start: Start) -> None:
    container = start(options=["--memory=400m", "--memory-swap=400m"])
    began = time.time()
    container.wait_for(2, "system_memory_usage_percentage", after=began)
    assert container.points("memory_oom_kills") == []
    for kills in (1, 2):
        killed = time.time()
        assert container.execute("python", "-c", ALLOCATE).returncode == KILLED
        shown = container.wait_for(1, "memory_oom_kills", after=killed)[-1][1]
        assert shown == container.witness.last().oom_kills == kills
    check_memory(container, time.time() - 1, 400 * MEBIBYTE)
    container.end()


def reap(container: Sampled, *command: str) -> None:
    """Runs `reap` when the last points are old enough, and checks that the run has ended with all its points."""
    last = container.points("system_memory_usage_percentage")[-1][0]
    time.sleep(
        max(last + 2 - time.time(), 0)
    )  # the run is known by points that are not yet on the server, too
    before = container.points("system_memory_usage_percentage")
    finished = container.docker.run(*command, "mlflow-sysmetrics", "reap", "--older-than", "1s", "--apply")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert container.statuses() == ["KILLED"]
    after = container.points("system_memory_usage_percentage")
    assert after[: len(before)] == before
    assert all(end - begin < ONE_INTERVAL for begin, end, _ in spans(after)), "a point is missing"


SPOOL = in_environment(MLFLOW_SYSMETRICS_SPOOL_DIR="/store/spool")
MEMORY = ["--memory=400m", "--memory-swap=400m"]


def test_a_run_whose_container_ran_out_of_memory(start: Start) -> None:
    """The kernel's counter is gone with the container; the last points tell `reap`, which another one runs."""
    host = "--hostname=trainer"
    container = start(options=[*SPOOL, *MEMORY, host])
    container.wait_for(3, "system_memory_usage_percentage")
    # The first process of the container is the one that the kernel chooses.
    made = container.execute("sh", "-c", "echo 1000 >/proc/1/oom_score_adj")
    assert made.returncode == 0, made.stderr
    container.execute("python", "-c", LEAK)
    assert container.docker("wait", container.name, timeout=PATIENCE_SECONDS) == str(KILLED)
    assert container.docker("inspect", "--format", "{{.State.OOMKilled}}", container.name) == "true"
    image = container.docker("inspect", "--format", "{{.Config.Image}}", container.name)
    options = ("--label", container.docker.label, "--volume", f"{container.store}:/store", host, *SPOOL)
    reap(container, "run", "--rm", *options, image)
    assert container.tags()["sysmetrics.reaped"].startswith("out of memory likely")


def test_a_run_whose_program_ran_out_of_memory(start: Start) -> None:
    """In a container that outlives the program, the kernel's counter tells `reap`."""
    program = '(echo 1000 >/proc/self/oom_score_adj; exec "$@"); echo killed; exec sleep 86400'
    container = start(options=[*SPOOL, *MEMORY, "--init"], entry=["sh", "-c", program, "sh"])
    container.wait_for(3, "system_memory_usage_percentage")
    killer = container.execute("python", "-c", LEAK)
    assert killer.returncode in {0, KILLED}, killer.stderr
    reap(container, "exec", *SPOOL, container.name)
    reason = container.tags()["sysmetrics.reaped"]
    assert reason.startswith("out of memory: memory."), reason
    assert " counted " in reason
