"""The CPUs that a job may use: online CPUs, affinity, cpuset and quota combined."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import parse_cpu_list
from mlflow_sysmetrics.machine.cpu_share import cpu_share, parse_affinity, parse_online_cpus
from mlflow_sysmetrics.machine.host import Host

FOUR_CPUS = "cpu  1 0 1 8 0\n" + "".join(f"cpu{number} 1 0 1 8 0\n" for number in range(4))


def machine(
    root: Path, *, affinity: str | None = None, cpuset: str | None = None, quota: str | None = None
) -> Host:
    """Returns a host with four CPUs and cgroup v2 whose job is limited."""
    files = {
        "proc/stat": FOUR_CPUS,
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/cgroup.procs": "1\n",
        "proc/self/status": affinity and f"Name:\tpython\nCpus_allowed_list:\t{affinity}\n",
        "sys/fs/cgroup/cpuset.cpus.effective": cpuset and f"{cpuset}\n",
        "sys/fs/cgroup/cpu.max": quota and f"{quota} 100000\n",
    }
    for path, text in files.items():
        if text is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
    return Host(root=root, environ={})


@pytest.mark.parametrize(
    ("affinity", "cpuset", "quota", "cores", "held_by_group"),
    [
        (None, None, None, 4, False),
        ("0-3", "0-3", "max", 4, False),
        ("0-1", None, None, 2, False),
        ("0-127", None, None, 4, False),
        ("0-1", "1-2", None, 1, False),
        ("1-2", "1-2", None, 2, True),
        ("0-127", "1-2", None, 2, True),
        ("0-1", None, "800000", 2, False),
        ("0-1", None, "50000", 0.5, True),
        (None, None, "400000", 4, False),
        (None, None, "150000", 1.5, True),
        ("64", "3", None, 1, True),
        ("garbage", "garbage", None, 4, False),
    ],
)
def test_combines_the_cpu_limits_of_a_job(  # noqa: PLR0917 - a table of them
    tmp_path: Path,
    affinity: str | None,
    cpuset: str | None,
    quota: str | None,
    cores: float,
    held_by_group: bool,
) -> None:
    share = cpu_share(machine(tmp_path, affinity=affinity, cpuset=cpuset, quota=quota))
    assert share.cores == cores
    assert share.limited is (cores < 4)
    assert share.held_by_group is held_by_group


def test_without_cgroups_all_cpus_are_available(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(FOUR_CPUS)
    assert cpu_share(Host(root=tmp_path)).cores == 4


def test_a_host_without_listed_cpus_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  1 2 3 4\n")
    with pytest.raises(Unavailable, match="lists no CPU"):
        cpu_share(Host(root=tmp_path))


def test_parses_the_online_cpus() -> None:
    assert parse_online_cpus("cpu  1 2\ncpu0 1 2\ncpu12 1 2\nintr 5\n") == {0, 12}


@pytest.mark.parametrize("text", ["0-99999999999", "a-b", "3;4"])
def test_an_invalid_cpu_list_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|is not a list of CPUs"):
        parse_cpu_list(text)


def test_reads_the_affinity_of_a_process() -> None:
    status = "Name:\tpython\nCpus_allowed:\tf\nCpus_allowed_list:\t0-1,3\nMems_allowed_list:\t0\n"
    assert parse_affinity(status) == {0, 1, 3}
    assert parse_affinity("Name:\tpython\n") is None
