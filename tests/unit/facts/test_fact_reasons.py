"""What the tag `sysmetrics.error` and `doctor` say of damaged files: words, nothing of Python's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import fact_list, linux
from mlflow_sysmetrics.facts.fact_list import FACTS, Sources
from mlflow_sysmetrics.machine.host import Host
from recorded import HOSTS, files, revive

pytestmark = pytest.mark.exhaustive

FROM_FILES = [fact for fact in FACTS if fact.name in {"memory", "cores", "container", "cloud", "cpu", "gpu"}]
MACHINES = [path for path in HOSTS if path.name in {"amd-radeon", "docker-v1"}]
READ = re.compile(
    r"proc/(cpuinfo|meminfo|stat|self/(status|cgroup|mountinfo))|cpu\.cfs|effective_cpus|memory\.(limit|stat)|"
    r"card1/device/[a-z_]+$|nodes/1/"
)
PYTHONS_WORDS = re.compile(r"\[Errno|invalid literal|[A-Z]\w*(?:Error|Exception)\b|\bb'|codec|NoneType")

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "garbage": lambda text: b"N/A (no PMA)\n",
    "not text": lambda text: bytes(range(128, 256)) + b"\n",
    "words for numbers": lambda text: re.sub(rb"\d+", b"many", text),
    "long numbers": lambda text: re.sub(rb"\d+", b"9" * 5000, text),
    "superscripts": lambda text: re.sub(rb"\d+", "\N{SUPERSCRIPT TWO}".encode(), text),
}


def no_command(command: object) -> str:
    raise Unavailable(f"a recorded machine runs no {command}")


def assert_in_words(host: Host, damage: str) -> None:
    sources = Sources(host=host, system=linux, run=no_command)
    for fact in FROM_FILES:
        _, reason = fact_list.look_for(fact, sources)
        assert not PYTHONS_WORDS.search(reason), f"{reason} [{damage}]"


@pytest.mark.parametrize("recorded", MACHINES, ids=lambda path: path.name)
def test_a_damaged_file_is_reported_in_words(recorded: Path, tmp_path: Path) -> None:
    host = revive(recorded, tmp_path)
    for path in filter(READ.search, files(recorded / "first")):
        file = tmp_path / path
        whole = file.read_bytes()
        for name, damage in DAMAGES.items():
            file.write_bytes(damage(whole))
            assert_in_words(host, f"{path}: {name}")
        file.unlink()
        assert_in_words(host, f"{path}: missing")
        file.mkdir()
        assert_in_words(host, f"{path}: a directory")
        file.rmdir()
        file.write_bytes(whole)
