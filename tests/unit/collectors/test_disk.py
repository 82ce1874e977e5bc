"""Disk space: which filesystems are read, how their series are named, and what happens when one hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_sysmetrics.collectors.disk import Disk
from mlflow_sysmetrics.collectors.watched_paths import names, watched_paths
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import DiskUsage, Host
from mlflow_sysmetrics.runtime.background_reading import BackgroundReading, Reading

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names")

PLAIN = {"disk_usage_percentage": 75, "disk_usage_megabytes": 3, "disk_available_megabytes": 1}
USAGE = DiskUsage(total=5_000_000, used=3_000_000, free=1_000_000)
MOUNTS = """20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:44 / /data rw - nfs4 server:/data rw
22 20 0:45 /@work /work rw - btrfs /dev/sdb rw,subvol=/@work
23 20 0:45 /@more /more rw - btrfs /dev/sdb rw,subvol=/@more
"""


class Disks:
    """Fakes disk usage; a test can make paths fail or hang and change sizes."""

    def __init__(self) -> None:
        self.fails: dict[str, OSError] = {}
        self.hangs: dict[str, threading.Event] = {}
        self.usage = USAGE

    def __call__(self, path: str) -> DiskUsage:
        if path in self.hangs:
            self.hangs[path].wait(300)
        if path in self.fails:
            raise self.fails[path]
        return self.usage

    def lose(self, path: str) -> None:
        self.fails[path] = FileNotFoundError(2, "No such file or directory", path)


@pytest.fixture
def disks() -> Iterator[Disks]:
    disks = Disks()
    yield disks
    for hang in disks.hangs.values():
        hang.set()
    for thread in readings():
        thread.join(60)
    assert readings() == []


Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path, disks: Disks) -> Make:
    """Makes a host with a mount table and the working directory /home/job."""

    def host(*further: str, mounts: str = MOUNTS, base: str = "/home/job") -> Host:
        (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/self/mountinfo").write_text(mounts)
        return Host(root=tmp_path, disk_usage=disks, working_directory=lambda: base, disks=further)

    return host


def readings() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sysmetrics-disk")]


def values(disk: Disk, now: float = 0) -> dict[str, float]:
    return {sample.key: sample.value for sample in disk.collect(now)}


def named(disk: Disk, now: float = 0) -> list[str]:
    """Returns the names in the keys of the percentages."""
    keys = (key for key in values(disk, now) if key.endswith("_usage_percentage"))
    return [key.removeprefix("disk_").removesuffix("usage_percentage").rstrip("_") for key in keys]


def gone() -> str:
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/"], ["root"]),
        (["/data"], ["data"]),
        (["/mnt/Data-Sets.v2"], ["data_sets_v2"]),
        (["/a/data", "/b/data"], ["a_data", "b_data"]),
        (["/data", "/mnt/data"], ["data", "mnt_data"]),
        (["/x/a/data", "/x/b/data", "/scratch"], ["a_data", "b_data", "scratch"]),
        (["/a-b", "/a_b", "/a.b"], ["a_b", "a_b_2", "a_b_3"]),
        (["/" + "x" * 255], ["x" * 64]),
        ([], []),
    ],
)
def test_a_series_name_uses_the_shortest_unambiguous_part_of_a_path(
    paths: list[str], expected: list[str]
) -> None:
    assert names(paths) == expected


def test_a_drive_is_named_by_its_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import PureWindowsPath

    monkeypatch.setattr("mlflow_sysmetrics.collectors.watched_paths.PurePath", PureWindowsPath)
    assert names(["D:\\", "E:\\Data"]) == ["d", "data"]


def test_a_relative_path_is_relative_to_the_working_directory(make: Make) -> None:
    watched, gaps = watched_paths(make("data", "../other", "/data"))
    assert [path for path, _ in watched] == ["/home/job", "/home/job/data", "/home/other", "/data"]
    assert gaps == []


def test_a_repeated_path_is_watched_once(make: Make) -> None:
    watched, _ = watched_paths(make("/data", "/data/", "/home/job", "."))
    assert watched == [("/home/job", None), ("/data", "data")]


def test_usage_is_a_percentage_of_the_space_available_to_ordinary_users(make: Make) -> None:
    assert values(Disk(make())) == PLAIN


def test_each_further_filesystem_has_its_own_series(make: Make) -> None:
    assert values(Disk(make("/data"))) == PLAIN | {
        "disk_data_usage_percentage": 75,
        "disk_data_usage_megabytes": 3,
        "disk_data_available_megabytes": 1,
    }


def test_a_path_on_the_working_directorys_filesystem_has_no_series(make: Make) -> None:
    disk = Disk(make("/opt"))
    assert values(disk) == PLAIN
    assert disk.gaps == ("/opt is on the same filesystem as /home/job, whose series cover both",)


def test_subvolumes_of_one_filesystem_share_a_series(make: Make) -> None:
    assert named(Disk(make("/work", "/more"))) == ["", "work"]


def test_without_a_mount_table_filesystems_are_distinguished_by_st_dev(tmp_path: Path, disks: Disks) -> None:
    (tmp_path / "data").mkdir()
    host = Host(root=tmp_path, disk_usage=disks, working_directory=lambda: "/", disks=("/data", "/absent"))
    assert named(Disk(host)) == ["", "absent"]  # if in doubt, a filesystem is shown


def test_the_message_about_a_missing_path_includes_the_remedy(make: Make, disks: Disks) -> None:
    disks.lose("/data")
    disk = Disk(make("/data"))
    assert values(disk) == PLAIN
    assert disk.gaps == ("/data: No such file or directory; mount it, or correct MLFLOW_SYSMETRICS_DISKS",)


def test_a_missing_path_is_warned_about_once(
    make: Make, disks: Disks, caplog: pytest.LogCaptureFixture
) -> None:
    disks.lose("/data")
    for _ in range(3):
        values(Disk(make("/data", "/work")), 60)
    (record,) = caplog.records
    assert "MLFLOW_SYSMETRICS_DISKS='/data' is not watched yet: /data: No such file" in record.getMessage()


def test_a_path_that_appears_is_found_within_a_minute(make: Make, disks: Disks) -> None:
    disks.lose("/data")
    disk = Disk(make("/data"))
    named(disk, 0)
    disks.fails.clear()
    assert named(disk, 59) == [""]
    assert named(disk, 60) == ["", "data"]
    assert disk.gaps == ()


def test_a_path_that_stops_answering_affects_no_other_and_recovers(make: Make, disks: Disks) -> None:
    disk = Disk(make("/data"))
    assert named(disk, 0) == ["", "data"]
    disks.fails["/home/job"] = OSError(116, "Stale file handle")
    assert named(disk, 4) == ["", "data"], "space changes slowly"
    assert named(disk, 5) == ["data"]
    assert disk.gaps == ("/home/job: Stale file handle",)
    disks.fails.clear()
    assert named(disk, 61) == ["", "data"]


def test_a_filesystem_mounted_later_gets_a_series(make: Make) -> None:
    before = MOUNTS.replace("/data rw", "/elsewhere rw")
    disk = Disk(make("/data", mounts=before))
    assert named(disk, 0) == [""]
    make("/data")
    assert named(disk, 60) == ["", "data"]


def test_further_paths_are_read_without_a_working_directory(make: Make, tmp_path: Path, disks: Disks) -> None:
    make()
    host = Host(root=tmp_path, disk_usage=disks, working_directory=gone, disks=("/data", "relative"))
    disk = Disk(host)
    assert named(disk) == ["data"]
    assert disk.gaps == (
        "the working directory does not exist (No such file or directory)",
        "relative cannot be resolved without it: use an absolute path",
    )


def test_without_paths_the_collector_is_unavailable(tmp_path: Path, disks: Disks) -> None:
    with pytest.raises(Unavailable, match="the working directory does not exist"):
        Disk(Host(root=tmp_path, disk_usage=disks, working_directory=gone))


def test_without_a_path_that_answers_the_collector_is_unavailable(make: Make, disks: Disks) -> None:
    disks.lose("/home/job")
    with pytest.raises(Unavailable, match=r"^/home/job: No such file or directory$"):
        Disk(make())


def test_a_filesystem_without_a_size_is_named_in_the_error(make: Make, disks: Disks) -> None:
    disks.usage = DiskUsage(0, 0, 0)
    with pytest.raises(Unavailable, match="the filesystem of /home/job reports no size"):
        Disk(make())


@pytest.mark.parametrize(
    "usage",
    [DiskUsage(100, -1, 50), DiskUsage(100, 200, 50), DiskUsage(100, 50, -1), DiskUsage(100, 0, 2**64)],
)
def test_an_impossible_size_yields_nothing(make: Make, disks: Disks, usage: DiskUsage) -> None:
    disk = Disk(make())
    disks.usage = usage
    assert values(disk) == {}


def test_changing_the_working_directory_does_not_change_the_disk(
    make: Make, tmp_path: Path, disks: Disks
) -> None:
    make()
    answers = iter(["/work", "/home/job"])
    host = Host(root=tmp_path, disk_usage=disks, working_directory=lambda: next(answers))
    disk = Disk(host)
    disks.lose("/work")
    assert values(disk) == {}


def test_the_gap_for_a_device_node_asks_for_a_directory() -> None:
    device = "/dev/null"
    disk = Disk(Host(working_directory=lambda: "/", disks=(device,)))
    assert f"{device} is a device: give a directory on its filesystem" in disk.gaps


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch, disks: Disks) -> None:
    """Shortens the wait for hanging paths only: on a busy machine, paths that answer may need longer."""
    answer = BackgroundReading.answer

    def answer_within(self: BackgroundReading[DiskUsage], *, within: float) -> Reading[DiskUsage] | None:
        hangs = any(self._name.endswith(f" {path}") for path in disks.hangs)
        return answer(self, within=min(within, 0.1) if hangs else within)

    monkeypatch.setattr(BackgroundReading, "answer", answer_within)


@pytest.mark.heavy
@pytest.mark.usefixtures("_impatient")
def test_an_unreachable_server_affects_only_its_own_series(make: Make, disks: Disks) -> None:
    disks.hangs["/data"] = threading.Event()
    disk = Disk(make("/data"))
    for now in range(100):
        assert values(disk, now) == PLAIN
    assert disk.gaps == ("/data does not respond; mount it, or correct MLFLOW_SYSMETRICS_DISKS",)


@pytest.mark.heavy
@pytest.mark.usefixtures("_impatient")
def test_a_hanging_filesystem_occupies_one_thread_for_all_collectors(make: Make, disks: Disks) -> None:
    disks.hangs["/data"] = threading.Event()
    host = make("/data")
    for _ in range(3):
        assert values(Disk(host)) == PLAIN
    assert len(readings()) == 1


@pytest.mark.heavy
@pytest.mark.usefixtures("_impatient")
def test_the_series_of_a_server_survives_a_brief_outage(
    make: Make, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(make("/data"))
    disks.hangs["/data"] = threading.Event()
    assert named(disk, 0) == ["", "data"]
    assert named(disk, 60) == ["", "data"]
    monkeypatch.setattr(
        "mlflow_sysmetrics.collectors.watched_paths._PATIENCE_SECONDS", 0.0
    )  # as after half a minute
    assert named(disk, 120) == [""]
    disks.hangs.pop("/data").set()
    readings()[0].join(60)
    assert named(disk, 180) == ["", "data"]


def test_network_filesystems_are_read_less_often_than_every_tick(make: Make, disks: Disks) -> None:
    disk = Disk(make(base="/data"))
    disks.usage = DiskUsage(total=9_000_000, used=6_000_000, free=2_000_000)
    assert values(disk, 0) == PLAIN
    assert values(disk, 60) == PLAIN | {"disk_usage_megabytes": 6, "disk_available_megabytes": 2}


def test_between_points_the_space_is_read_every_five_seconds(make: Make) -> None:
    disk = Disk(make())
    assert disk.collect(0)
    assert not disk.levels(4)
    assert disk.levels(5)
    assert disk.collect(6), "a point has a value"
