"""Files whose change is noticed at every tick."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from mlflow_sysmetrics.machine.files import LiveFile, LiveFiles

pytestmark = pytest.mark.heavy

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="files of the kernel: not on macOS or Windows"
)
FILTER = "/proc/self/coredump_filter"  # a short file of the kernel that a process may write without rights


def test_a_change_is_noticed_once_per_tick(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("max 100000\n")
    live = LiveFiles()
    live.watch([str(file)])
    assert live.check(1) == live.check(2) == 0
    file.write_text("50000 100000\n")
    assert live.check(2) == 0
    assert live.check(3) == 1


def test_after_a_change_nothing_is_watched_until_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    live = LiveFiles()
    for now, text in enumerate(("1", "2")):
        live.watch([str(file)])
        file.write_text(text)
        assert live.check(2 * now) == now + 1
        file.write_text(text * 2)
        assert live.check(2 * now + 1) == now + 1


def test_a_file_that_is_replaced_appears_or_disappears_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    missing = LiveFile(str(file))
    assert not missing.has_changed()
    file.write_text("1\n")
    assert missing.has_changed()
    present = LiveFile(str(file))
    file.unlink()
    assert present.has_changed()
    file.write_text("2\n")
    assert present.has_changed()


def test_a_file_that_does_not_answer_holds_up_one_thread_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveFiles()
    live.watch([str(tmp_path / "cpu.max")])
    asked = []

    def hangs(file: LiveFile) -> bool:
        asked.append(file)
        assert live.check(2) == 0, "what another thread does meanwhile"
        return False

    monkeypatch.setattr(LiveFile, "has_changed", hangs)
    assert live.check(1) == 0
    assert len(asked) == 1


@pytest.fixture
def coredump_filter() -> str:
    text = Path(FILTER).read_text()
    yield text
    Path(FILTER).write_text(f"0x{text.strip()}\n")


@linux_only
def test_a_file_of_the_kernel_is_read_without_opening_it_again(coredump_filter: str) -> None:
    before = open_files()
    file = LiveFile(FILTER)
    assert len(open_files() - before) == 1
    assert not file.has_changed()
    Path(FILTER).write_text(f"{int(coredump_filter, 16) ^ 1:#x}\n")
    assert file.has_changed()
    del file
    gc.collect()
    assert open_files() == before


@linux_only
def test_a_descriptor_that_the_program_took_is_not_closed(tmp_path: Path) -> None:
    """A program that closes what it does not know, as a daemon does, may get our number for its own file."""
    before = open_files()
    file = LiveFile(FILTER)
    (descriptor,) = open_files() - before
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    os.dup2(theirs, descriptor)
    assert file.has_changed()
    del file
    gc.collect()
    os.write(descriptor, b"still open")
    assert (tmp_path / "theirs").read_bytes() == b"still open"
    os.close(descriptor)
    os.close(theirs)


@linux_only
def test_without_descriptors_a_file_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", exhausted)
        patch.setattr("builtins.open", exhausted)
        file = LiveFile(FILTER)
        assert not file.has_changed()
    assert file.has_changed()


def open_files() -> set[int]:
    """Returns the open descriptors, without that of the listing."""
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    return {descriptor for descriptor in listed if os.path.exists(f"/proc/self/fd/{descriptor}")}
