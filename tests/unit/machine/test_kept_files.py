"""Files of the kernel that stay open, and files whose change is noticed at every tick."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_sysmetrics.machine import kept_files
from mlflow_sysmetrics.machine.kept_files import KeptFile, KeptFiles

pytestmark = pytest.mark.heavy

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="files of the kernel: not on macOS or Windows"
)
FILTER = "/proc/self/coredump_filter"  # a short file of the kernel that a process may write without rights


def ours() -> set[int]:
    """Returns the open descriptors beyond those of programs."""
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    return {one for one in listed if one >= kept_files._FIRST_DESCRIPTOR}


@pytest.fixture(scope="module", autouse=True)
def what_was_there_before() -> None:
    """Keeps the objects of the tests before out of every collection here: after thousands it takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def coredump_filter() -> Iterator[str]:
    text = Path(FILTER).read_text()
    yield text
    Path(FILTER).write_text(f"0x{text.strip()}\n")


# --- one file ---


@linux_only
def test_a_file_of_the_kernel_is_opened_once(coredump_filter: str) -> None:
    before = ours()
    file = KeptFile(FILTER)
    assert file.read().decode() == coredump_filter
    assert len(ours() - before) == 1
    changed = f"{int(coredump_filter, 16) ^ 1:08x}\n"
    Path(FILTER).write_text(f"0x{changed}")
    assert file.read().decode() == changed
    assert len(ours() - before) == 1
    del file
    gc.collect()
    assert ours() == before


@linux_only
def test_the_descriptor_is_closed_on_exec() -> None:
    file = KeptFile(FILTER)
    file.read()
    assert not os.get_inheritable(file.descriptor)
    code = "import os; print(max(map(int, os.listdir('/proc/self/fd'))))"
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code], close_fds=False, capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) < file.descriptor


@linux_only
def test_a_forked_child_closes_what_it_inherits_and_reads_its_own_files() -> None:
    file = KeptFile("/proc/self/stat")
    assert int(file.read().split()[0]) == os.getpid()
    inherited = file.descriptor
    child = os.fork()
    if not child:
        is_open = os.path.exists(f"/proc/self/fd/{inherited}")
        is_own = int(file.read().split()[0]) == os.getpid()
        os._exit(is_open or not is_own)
    assert os.waitpid(child, 0)[1] == 0
    assert file.descriptor == inherited, "the parent keeps it"


@pytest.mark.parametrize("text", ["first\n", "", "x" * 5000, "line\n" * 2000])
@pytest.mark.parametrize("pieces", [False, True])
def test_another_file_of_the_same_name_is_read(tmp_path: Path, text: str, pieces: bool) -> None:
    path = tmp_path / "stat"
    path.write_text("0\n")
    file = KeptFile(str(path), pieces=pieces)
    assert file.read() == b"0\n"
    (tmp_path / "new").write_text(text)
    (tmp_path / "new").replace(path)
    assert file.read() == text.encode()
    path.unlink()
    with pytest.raises(FileNotFoundError) as raised:
        file.read()
    assert raised.value.filename == str(path)


@linux_only
def test_the_file_of_a_process_that_has_ended_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        file = KeptFile(f"/proc/{process.pid}/stat")
        assert file.read()
        process.kill()
    with pytest.raises(FileNotFoundError):
        file.read()
    assert file.descriptor < 0


@linux_only
@pytest.mark.parametrize("theirs", [b"", b"cpu  1 2 3 4 5 6 7 8\n"])
def test_what_a_program_does_with_all_descriptors_is_noticed(tmp_path: Path, theirs: bytes) -> None:
    """A daemon closes those that it does not know, and its own files get low numbers."""
    file = KeptFile(FILTER)
    expected = file.read()
    descriptor = file.descriptor
    os.close(descriptor)
    (tmp_path / "theirs").write_bytes(theirs)
    opened = [os.open(tmp_path / "theirs", os.O_RDWR) for _ in range(3)]
    assert descriptor not in opened
    assert file.read() == expected
    for one in opened:
        os.close(one)


@linux_only
def test_a_descriptor_that_the_program_took_is_not_closed(tmp_path: Path) -> None:
    file = KeptFile(FILTER)
    file.read()
    descriptor = file.descriptor
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    os.dup2(theirs, descriptor)
    del file
    gc.collect()
    os.write(descriptor, b"still open")
    assert (tmp_path / "theirs").read_bytes() == b"still open"
    os.close(descriptor)
    os.close(theirs)


@linux_only
def test_at_most_a_stated_number_is_kept() -> None:
    files = [KeptFile("/proc/loadavg") for _ in range(kept_files.MOST_KEPT + 5)]
    assert all(file.read() for file in files)
    assert len(ours()) <= kept_files.MOST_KEPT
    del files
    gc.collect()


@linux_only
def test_with_few_descriptors_files_are_read_by_their_path() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    file = KeptFile("/proc/loadavg")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert file.read()
        assert file.descriptor < 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@linux_only
def test_a_table_that_comes_in_pieces_is_read_whole() -> None:
    file = KeptFile("/proc/self/maps", pieces=True)
    for _ in range(2):
        text = file.read()
        assert len(text) > kept_files._SURELY_WHOLE
        assert text.endswith(b"\n")
        assert b"[stack]" in text


# --- a kernel that changes ---

IN_A_CHILD = """
import ctypes, os, sys
from mlflow_sysmetrics.machine.kept_files import KeptFiles
files = KeptFiles()
"""


def run(program: str) -> None:
    """Runs a program that changes what its own process sees; it exits with 77 if it may not."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD + program], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr


@linux_only
def test_collectors_that_are_built_anew_or_given_up_leave_no_descriptor() -> None:
    """In a process of its own, which is small and has no children: both would be read thirty times."""
    run(
        """
import gc
from mlflow_sysmetrics.collectors.registry import LINUX
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.machine import kept_files
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family

def ours():
    return {one for one in map(int, os.listdir("/proc/self/fd")) if one >= kept_files._FIRST_DESCRIPTOR}

before = ours()
host = Host()
probes = [Probe(one, host) for one in LINUX if one.family not in {Family.GPU, Family.GPU_PROFILE}]
counts = set()
for now in range(0, 600, 20):
    for probe in probes:
        probe.renew()
        assert probe.read(float(now)) is not None
    gc.collect()
    counts.add(len(ours() - before))
assert len(counts) == 1, counts
assert 0 < counts.pop() <= kept_files.MOST_KEPT
del host, probe, probes
gc.collect()
assert ours() == before
"""
    )


CGROUPS = """
from pathlib import Path
from mlflow_sysmetrics.machine.cgroups import controller_directory
from mlflow_sysmetrics.machine.host import Host
try:
    top = Path("/", controller_directory(Host(), "pids").own)
    one, other = top / f"kept-{os.getpid()}", top / f"other-{os.getpid()}"
    one.mkdir()
    other.mkdir()
    (one / "cgroup.procs").write_text(str(os.getpid()))
except Exception as error:
    print("no cgroup can be made here:", error)
    sys.exit(77)
name = "pids.max"
"""


@linux_only
def test_the_file_of_a_cgroup_that_is_gone_is_gone() -> None:
    run(
        CGROUPS
        + """
kept = files.keep(str(other / name))
assert kept.read() and kept.descriptor >= 0
other.rmdir()
try:
    kept.read()
except FileNotFoundError:
    assert kept.descriptor < 0
else:
    raise AssertionError("it is still read")
finally:
    (top / "cgroup.procs").write_text(str(os.getpid()))
    one.rmdir()
"""
    )


@linux_only
def test_a_move_to_another_cgroup_is_noticed_and_a_limit_of_the_dead_one_too() -> None:
    run(
        CGROUPS
        + """
try:
    files.watch(["/proc/self/cgroup"])
    assert files.check(1) == files.check(2) == 0
    (other / "cgroup.procs").write_text(str(os.getpid()))
    assert files.check(3) == 1
    files.watch([str(one / name)])
    assert files.check(4) == 1
    one.rmdir()
    assert files.check(5) == 2
finally:
    (top / "cgroup.procs").write_text(str(os.getpid()))
    other.rmdir()
"""
    )


@linux_only
def test_another_network_namespace_is_seen_within_a_minute() -> None:
    run(
        """
kept = files.keep("/proc/net/dev", pieces=True)
kept.read()
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
    print("no network namespace can be made here")
    sys.exit(77)
for now in range(70):
    files.check(float(now))
names = [line.split(b":")[0].strip() for line in kept.read().splitlines()[2:]]
assert b"lo" in names and open("/proc/net/dev", "rb").read() == kept.read(), names
"""
    )


# --- what belongs to a daemon ---


@linux_only
def test_a_file_that_a_program_puts_in_our_place_is_found_within_a_minute(tmp_path: Path) -> None:
    files = KeptFiles()
    file = files.keep("/proc/loadavg")
    file.read()
    descriptor = file.descriptor
    (tmp_path / "theirs").write_bytes(b"theirs")
    theirs = os.open(tmp_path / "theirs", os.O_RDWR)
    os.dup2(theirs, descriptor)
    for now in range(70):
        files.check(float(now))
    assert len(file.read().split()) == 5
    assert os.pread(descriptor, 100, 0) == b"theirs", "it is the program's now"
    file.close()
    os.close(descriptor)
    os.close(theirs)


@linux_only
def test_what_is_behind_a_path_is_looked_up_again_once_a_minute() -> None:
    files = KeptFiles()
    file = files.keep("/proc/loadavg")
    file.read()
    files.check(0.0)
    files.check(1.0)
    file.path = "/proc/uptime"  # as if that were mounted over it
    files.check(59.0)
    assert len(file.read().split()) == 5
    files.check(60.0)
    files.check(61.0)
    assert len(file.read().split()) == 2


def test_a_change_is_noticed_once_per_tick(tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text("max 100000\n")
    files = KeptFiles()
    files.watch([str(path)])
    assert files.check(1) == files.check(2) == 0
    path.write_text("50000 100000\n")
    assert files.check(2) == 0
    assert files.check(3) == 1


def test_after_a_change_nothing_is_watched_until_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    files = KeptFiles()
    for now, text in enumerate(("1", "2")):
        files.watch([str(path)])
        path.write_text(text)
        assert files.check(2 * now) == now + 1
        path.write_text(text * 2)
        assert files.check(2 * now + 1) == now + 1


def test_a_file_that_is_replaced_appears_or_disappears_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "memory.max"
    files = KeptFiles()
    for now, change in enumerate(
        (lambda: path.write_text("1\n"), path.unlink, lambda: path.write_text("2\n"))
    ):
        files.watch([str(path)])
        assert files.check(2 * now) == now
        change()
        assert files.check(2 * now + 1) == now + 1


@linux_only
def test_a_watched_file_of_the_kernel_is_opened_once(coredump_filter: str) -> None:
    before = ours()
    files = KeptFiles()
    files.watch([FILTER])
    assert files.check(0) == files.check(1) == 0
    assert len(ours() - before) == 1
    Path(FILTER).write_text(f"{int(coredump_filter, 16) ^ 1:#x}\n")
    assert files.check(2) == 1
    gc.collect()
    assert ours() == before


@linux_only
def test_a_watched_descriptor_that_is_closed_or_taken_does_not_count_as_a_change_for_ever(
    tmp_path: Path,
) -> None:
    before = ours()
    files = KeptFiles()
    files.watch([FILTER])
    (descriptor,) = ours() - before
    os.close(descriptor)
    assert files.check(0) == files.check(1) == 0
    (descriptor,) = ours() - before
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    os.dup2(theirs, descriptor)
    assert files.check(2) == 1, "everything is looked up again, by its path"
    files.watch([FILTER])
    assert files.check(3) == 1
    os.close(descriptor)
    os.close(theirs)


def test_a_file_that_does_not_answer_holds_up_one_thread_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = KeptFiles()
    files.watch([str(tmp_path / "cpu.max")])
    asked = []

    def hangs(path: str) -> bytes:
        asked.append(path)
        assert files.check(2) == 0, "what another thread does meanwhile"
        raise FileNotFoundError

    monkeypatch.setattr(kept_files.KeptFile, "read", lambda file: hangs(file.path))
    assert files.check(1) == 0
    assert len(asked) == 1


@linux_only
def test_without_descriptors_a_file_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    files = KeptFiles()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", exhausted)
        files.watch([FILTER])
        assert files.check(0) == 0
    assert files.check(1) == 1


STABLE = [f"/proc/sys/kernel/{name}" for name in ("ostype", "osrelease", "version", "pid_max")]


@linux_only
@pytest.mark.parametrize("place", range(5))
def test_of_many_watched_files_each_is_read_within_four_ticks(
    coredump_filter: str, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    files = KeptFiles()
    files.watch([*STABLE[:place], FILTER, *STABLE[place:]])
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *which: read.append(which[0]) or pread(*which))
    assert [files.check(now) for now in range(4)] == [0] * 4
    assert len(set(read)) == 5
    assert len(read) == 5
    Path(FILTER).write_text(f"{int(coredump_filter, 16) ^ 1:#x}\n")
    assert sum(files.check(now) for now in range(4, 8)) >= 1
    assert files.version == 1


@linux_only
def test_who_asks_now_and_then_has_all_watched_files_read(coredump_filter: str) -> None:
    for place in range(5):
        files = KeptFiles()
        files.watch([*STABLE[:place], FILTER, *STABLE[place:]])
        assert files.check_all(0) == 0
        Path(FILTER).write_text(f"{int(coredump_filter, 16) ^ (place + 1):#x}\n")
        assert files.check_all(1) == 1
