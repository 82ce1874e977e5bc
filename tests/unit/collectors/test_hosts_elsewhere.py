"""Machines that users of other projects recorded: what we say of them, and what those projects' readers say.

Nothing of theirs is part of this repository: the folders are read where they lie, beside the project. Each has the form
of a folder of `tests/hosts`, and `expected.json` with the other reader's values; one of nvidia-smi's answers has no tree.
What we say is kept in `tests/elsewhere/`, and `docs/explanation/other_readers.md` explains every difference.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_hosts import NOT_FROM_FILES, assert_described

from mlflow_sysmetrics.collectors.registry import name_of
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import fact_list, linux
from mlflow_sysmetrics.facts.fact_list import FACTS, Sources
from mlflow_sysmetrics.machine.command import CommandMissing
from mlflow_sysmetrics.machine.host import Host
from recorded import LINUX, advance, build, revive
from watching import eventually

ROOT = Path(__file__).parents[3]
ELSEWHERE = ROOT.parent / "shared" / "hosts"
GOLDEN = ROOT / "tests" / "elsewhere"
PAGE = ROOT / "docs" / "explanation" / "other_readers.md"
BLESS = "if this is intended: pytest --bless tests/unit/collectors/test_hosts_elsewhere.py"

FOLDERS = {path.parent.name: path.parent for path in ELSEWHERE.glob("*/expected.json")}
FACTS_FROM_FILES = {"memory", "cores", "container", "cloud", "cpu", "gpu"}
COLLECTORS = [one for one in LINUX if one not in NOT_FROM_FILES]
TOLERANCE = 0.006  # of a value, for what its reader rounds

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        not FOLDERS, reason="the recorded machines of other projects are not in ../shared/hosts"
    ),
]
every_machine = pytest.mark.parametrize(
    "name", sorted({path.stem for path in GOLDEN.glob("*.json")} | FOLDERS.keys())
)

Said = dict[str, Any]


@pytest.fixture(autouse=True)
def cpu_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents ticks from being cut short because the test machine is slow."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Said]:
    """What we say of each machine, found out when it is asked for."""

    class Found(dict[str, Said]):
        def __missing__(self, name: str) -> Said:
            self[name] = look(FOLDERS[name], tmp_path_factory.mktemp(name))
            return self[name]

    return Found()


def look(folder: Path, root: Path) -> Said:
    """Returns tags, reasons, samples of two moments and gaps of a machine; checks what holds for each collector."""
    host = host_of(folder, root)
    tags, reasons = dict[str, str](), dict[str, str]()
    sources = Sources(host=host, system=linux, run=host.run)
    for fact in FACTS:
        if fact.name in FACTS_FROM_FILES:
            found, reason = fact_list.look_for(fact, sources)
            tags |= found
            reasons |= {f"fact {fact.name}": reason} if reason else {}
    built = []
    for kind in COLLECTORS:
        one = build(kind, host)
        if isinstance(one, Unavailable):
            reasons[name_of(kind)] = str(one)
        else:
            built.append((kind, one))
    moments: list[dict[str, float]] = []
    for second in (0, 1):
        if second:
            advance(folder, root)
        moments.append({})
        for kind, one in built:
            for sample in one.collect(float(second)):
                assert_described(sample, kind)
                assert math.isfinite(sample.value)
                assert sample.value >= 0
                assert sample.key not in moments[-1]
                moments[-1][sample.key] = round(sample.value, 3)
    gaps = {name_of(kind): list(one.gaps) for kind, one in built if one.gaps}
    text = json.dumps({"tags": tags, "unavailable": reasons, "moments": moments, "gaps": gaps})
    found_all: Said = json.loads(text.replace(str(root), ""))
    return found_all


def host_of(folder: Path, root: Path) -> Host:
    """Returns a machine at its first moment; nvidia-smi answers if its answer was recorded."""
    answer = folder / "query_gpu.csv"

    def run(command: Sequence[str]) -> str:
        if answer.exists() and command[0] == "nvidia-smi":
            return answer.read_text()
        raise CommandMissing(f"{command[0]} is not installed")

    recorded = revive(folder, root)
    if answer.exists():
        (root / "dev").mkdir()
        (root / "dev/nvidiactl").touch()
    return Host(
        root=root,
        environ={"PATH": "/nonexistent"},
        platform="linux",
        gpus="all",
        process_seconds=recorded.process_seconds,
        has_nvml=lambda: False,
        working_directory=lambda: "/",
        disk_usage=recorded.disk_usage,
        run=run,
    )


@every_machine
def test_our_values_match_the_golden_file(
    name: str, said: Mapping[str, Said], request: pytest.FixtureRequest
) -> None:
    golden = GOLDEN / f"{name}.json"
    if name not in FOLDERS:
        pytest.fail(f"{golden} has no machine in {ELSEWHERE}")
    text = json.dumps(said[name], indent=1, ensure_ascii=False) + "\n"
    if request.config.getoption("--bless"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert golden.exists(), BLESS
    assert said[name] == json.loads(golden.read_text(encoding="utf-8")), BLESS


@every_machine
def test_a_hundred_ticks_leave_as_many_open_files_as_before(name: str, tmp_path: Path) -> None:
    host = host_of(FOLDERS[name], tmp_path)
    built = [one for one in (build(kind, host) for kind in COLLECTORS) if not isinstance(one, Unavailable)]
    before = len(os.listdir("/proc/self/fd"))
    for second in range(100):
        for one in built:
            list(one.collect(float(second)))
    # Threads of other tests may have a file open for a moment; a leaked one stays open.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, 10)


def expected(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((FOLDERS[name] / "expected.json").read_text(encoding="utf-8"))
    return found


def ours(said: Said, key: str) -> str | float | None:
    """Returns our value: a tag, or the last sample of the key."""
    if key.startswith("sys."):
        return said["tags"].get(key)
    values = [moment[key] for moment in said["moments"] if key in moment]
    return values[-1] if values else None


def agree(row: Mapping[str, Any], own: str | float | None) -> bool:
    theirs = row["theirs"]
    if row.get("match") == "contains":
        return isinstance(own, str) and str(theirs) in own
    if theirs is None or own is None:
        return theirs is own
    try:
        difference = abs(float(theirs) - float(own))
    except ValueError:
        return str(theirs) == str(own)
    return difference <= row.get("tolerance", TOLERANCE) * max(abs(float(theirs)), 1)


def shown(value: str | float | None) -> str:
    """Returns a value as the page writes it."""
    if value is None:
        return "-"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(heading: str) -> Iterator[list[str]]:
    """Yields the cells of each row of the page's table under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@every_machine
def test_every_difference_from_the_other_reader_is_explained(name: str, said: Mapping[str, Said]) -> None:
    rows = {row["key"]: row for row in expected(name)["values"]}
    found = {
        (key, shown(row["theirs"]), shown(ours(said[name], key)))
        for key, row in rows.items()
        if not agree(row, ours(said[name], key))
    }
    written = {tuple(row[1:4]) for row in table("Differences") if row[0] == name}
    assert written == found
    assert all(row[4] for row in table("Differences")), "the last column says why"


@every_machine
def test_the_page_names_the_reader_and_counts_the_values(name: str, said: Mapping[str, Said]) -> None:
    (row,) = [row for row in table("Machines") if row[0] == name]
    values = expected(name)["values"]
    differ = sum(not agree(one, ours(said[name], one["key"])) for one in values)
    assert row[-2:] == [str(len(values)), str(differ)]


def test_the_page_has_no_other_machines() -> None:
    assert {row[0] for row in table("Machines")} == FOLDERS.keys()
