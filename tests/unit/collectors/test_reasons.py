"""What `status()`, `doctor` and the log say of damaged sources: families and words, nothing of Python's."""

from __future__ import annotations

import builtins
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mlflow_sysmetrics.collectors import registry
from mlflow_sysmetrics.collectors.registry import CollectorEntry, name_of
from mlflow_sysmetrics.daemon.sampling.probe import OK, Probe
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import Malformed, quoted, why_unread
from recorded import HOSTS, LINUX, build, files, revive

pytestmark = pytest.mark.exhaustive

PYTHONS_WORDS = re.compile(
    r"\[Errno|invalid literal|[A-Z]\w*(?:Error|Exception)\b|Traceback|\bb['\"]|codec|NoneType|object at|"
    r"\bint\(|unpack|list index|not enough values|could not convert|\\x[0-9a-f]|\\n"
)
CLASS_NAMES = re.compile("|".join(rf"\b{entry.name}\b" for entry in (*registry.LINUX, *registry.PORTABLE)))
# Their readings do not come from files.
OTHERS = {"Disk", "Nvidia", "NvidiaProfile", "TorchAllocator"}
FROM_FILES = [entry for entry in registry.LINUX if entry.name not in OTHERS]

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "garbage": lambda text: b"N/A (no PMA)\n",
    "not text": lambda text: bytes(range(128, 256)) + b"\n",
    "words for numbers": lambda text: re.sub(rb"\d+", b"many", text),
    "a missing column": lambda text: re.sub(rb"[ \t]+\S+$", b"", text, flags=re.MULTILINE),
    "cut off": lambda text: text[: len(text) // 2],
    "zeros": lambda text: b"\0" * len(text),
}
REFUSALS = {"no permission": (13, "Permission denied"), "broken": (5, "Input/output error")}


@pytest.fixture(autouse=True)
def cpu_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents ticks from being cut short because the test machine is slow."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)


class Opened:
    """The files below a root that are opened, and those that refuse to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.paths: set[Path] = set()
        self.refused: dict[str, tuple[int, str]] = {}
        self._root = str(root)
        real_open, real_builtin = os.open, builtins.open

        def opening(path: object, *arguments: object, **options: object) -> int:
            self._pass(path)
            return real_open(path, *arguments, **options)  # type: ignore[arg-type]

        def opening_file(path: object, *arguments: object, **options: object) -> object:
            self._pass(path)
            return real_builtin(path, *arguments, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(os, "open", opening)
        monkeypatch.setattr(builtins, "open", opening_file)

    def _pass(self, path: object) -> None:
        if isinstance(path, str) and path.startswith(self._root):
            self.paths.add(Path(path))
            if path in self.refused:
                raise OSError(*self.refused[path], path)


def said(entry: CollectorEntry, host: Host, damage: Callable[[], object]) -> Iterator[str]:
    """Yields the health of a collector that is built on a damaged machine, and of one that sees the damage."""
    new, old = Probe(entry, replace(host)), Probe(entry, replace(host))
    old.read(0.0)
    damage()
    for now in (1.0, 2.0):
        for probe in (new, old):
            probe.read(now)
            yield probe.health


def assert_in_words(text: str) -> None:
    assert not PYTHONS_WORDS.search(text), text
    assert not CLASS_NAMES.search(text), text


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The recorded machine with the fewest files that has the source of a collector, by collector."""
    found: dict[str, Path] = {}
    for recorded in sorted(HOSTS, key=lambda one: len(files(one / "first"))):
        host = revive(recorded, tmp_path_factory.mktemp(recorded.name))
        for entry in FROM_FILES:
            if entry.name not in found and not isinstance(build(entry.load(), host), Unavailable):
                found[entry.name] = recorded
    return found


@pytest.mark.parametrize("entry", FROM_FILES, ids=lambda entry: entry.name)
def test_a_damaged_file_is_reported_in_words(
    entry: CollectorEntry,
    smallest: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "mlflow_sysmetrics")
    root = tmp_path / "root"
    host = revive(smallest[entry.name], root)
    opened = Opened(monkeypatch, root)
    assert all(health.startswith(OK) for health in said(entry, host, lambda: None))
    # One of each name: the cards of a machine have the same files.
    read = {file.name: file for file in sorted(opened.paths) if file.is_file()}
    assert read
    for file in read.values():
        whole = file.read_bytes()
        for name, damage in DAMAGES.items():
            for health in said(entry, host, partial(file.write_bytes, damage(whole))):
                assert_in_words(f"{health} [{file.name}: {name}]")
            file.write_bytes(whole)
        for name, refusal in REFUSALS.items():
            for health in said(entry, host, partial(opened.refused.update, {str(file): refusal})):
                assert_in_words(f"{health} [{file.name}: {name}]")
            opened.refused.clear()
        for health in said(entry, host, partial(put_directory, file)):
            assert_in_words(f"{health} [{file.name}: a directory]")
        file.rmdir()
        file.write_bytes(whole)
    for record in caplog.records:
        assert_in_words(record.getMessage())


def put_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("collector", LINUX, ids=lambda collector: collector.__name__)
def test_an_empty_machine_is_reported_in_words(collector: type, tmp_path: Path) -> None:
    def no_nvml() -> object:
        raise ImportError("No module named 'pynvml'")

    def no_disk(path: str) -> object:
        raise FileNotFoundError(2, "No such file or directory", path)

    host = Host(root=tmp_path, environ={}, load_nvml=no_nvml, disk_usage=no_disk)  # type: ignore[arg-type]
    probe = Probe(collector, host)
    probe.read(0)
    assert_in_words(probe.health)
    assert_in_words(probe.name)


def test_every_collector_has_a_name_of_its_own_that_begins_with_its_family() -> None:
    for entries in (registry.LINUX, registry.PORTABLE):
        names = [name_of(entry) for entry in entries]
        assert len(set(names)) == len(names)
        for entry, name in zip(entries, names, strict=True):
            assert name.partition(" ")[0] == entry.family.value
            assert name_of(entry.load()) == name
            assert_in_words(name)


@pytest.mark.parametrize(
    ("error", "source", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), "", "/x: No such file or directory"),
        (OSError(5, "Input/output error"), "/sys/y", "/sys/y: Input/output error"),
        (OSError(), "/sys/y", "/sys/y: the system reports an error without a name"),
        (Malformed("/proc/meminfo has no MemTotal"), "", "/proc/meminfo has no MemTotal"),
        (Malformed('"x" is not a count'), "/proc/y", '/proc/y: "x" is not a count'),
        (ValueError("invalid literal for int()"), "/z", "/z: something else than expected"),
    ],
)
def test_an_error_is_put_into_words(error: OSError | ValueError, source: str, words: str) -> None:
    assert why_unread(error, source) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"N/A (no PMA)\n", '"N/A (no PMA)"'),
        (b"", "nothing"),
        (b" \n", "nothing"),
        (b"a\x00\tb", '"a b"'),
        (b"a\x00\tb\xff", "something that is not text"),
        ("x" * 50, f'"{"x" * 40}..."'),
    ],
)
def test_a_text_is_quoted_in_one_short_line(text: bytes | str, shown: str) -> None:
    assert quoted(text) == shown
