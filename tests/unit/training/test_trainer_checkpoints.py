"""Checkpoints are complete or absent, and hold what a resume needs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mlflow_sysmetrics.training.trainer import checkpoints, run_to_resume
from mlflow_sysmetrics.training.trainer.checkpoints import Checkpoints
from mlflow_sysmetrics.training.trainer.resume import Extent, Recorded, read_extent

pytestmark = pytest.mark.heavy

CPU = torch.device("cpu")
FULL = Path("/dev/full")


def test_checkpoints_are_read_back_as_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a" / "b")
    assert checkpoints.load_latest() is None
    assert checkpoints.load_best() is None
    assert checkpoints.save_latest({"epoch": 3})
    assert checkpoints.save_best({"epoch": 2})
    assert (checkpoints.load_latest(), checkpoints.load_best()) == ({"epoch": 3}, {"epoch": 2})


def test_a_failed_write_keeps_the_previous_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best({"epoch": 1})
    (tmp_path / "best_checkpoint.unfinished").mkdir()  # a directory cannot be opened as a file
    assert not checkpoints.save_best({"epoch": 2})
    assert checkpoints.load_best() == {"epoch": 1}
    assert "best_checkpoint.pt, training continues without it" in caplog.text


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "latest_checkpoint.unfinished").symlink_to(FULL)
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.save_latest({"weights": torch.zeros(100_000)})
    assert "cannot write" in caplog.text
    assert checkpoints.load_latest() is None


def test_an_unwritable_directory_is_an_error_at_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / "latest_checkpoint.unfinished").mkdir()
    with pytest.raises(OSError, match="latest_checkpoint"):
        checkpoints.try_out({})


def test_the_error_about_a_broken_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpoint.pt").write_bytes(b"half of a")
    with pytest.raises(ValueError, match=r"cannot read the checkpoint .*; move it away to start afresh"):
        Checkpoints(tmp_path).load_latest()


def test_a_temporary_directory_holds_no_latest_checkpoint_and_is_removed() -> None:
    checkpoints = Checkpoints(None)
    checkpoints.save_latest({})
    checkpoints.save_best({})
    assert [one.name for one in checkpoints.directory.iterdir()] == ["best_checkpoint.pt"]
    checkpoints.remove_temporary()
    assert not checkpoints.directory.exists()


def test_a_lasting_directory_is_not_removed(tmp_path: Path) -> None:
    Checkpoints(tmp_path).remove_temporary()
    assert tmp_path.exists()


def draws(loaders: list[Any]) -> list[object]:
    import numpy as np

    return [
        random.random(),
        np.random.random(),  # noqa: NPY002 - the generator that augmentations use
        torch.rand(3).tolist(),
        *[[int(one) for batch in loader for one in batch] for loader in loaders],
    ]


def test_random_generators_are_restored(tmp_path: Path) -> None:
    own = torch.Generator().manual_seed(5)
    loaders = [torch.utils.data.DataLoader(range(20), 3, shuffle=True, generator=own), None]
    states = checkpoints.random_states(CPU, loaders)
    first = draws(loaders[:1])
    assert draws(loaders[:1]) != first
    Checkpoints(tmp_path).save_latest(states)
    found = Checkpoints(tmp_path).load_latest()
    assert found is not None
    checkpoints.restore(found, CPU, loaders)
    assert draws(loaders[:1]) == first


def test_the_extent_of_the_record_is_written_at_once(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, Extent("a" * 32))
    recorded.note(step=30)
    recorded.note(epoch=2)
    recorded.note(step=20, final=30)
    assert read_extent(tmp_path) == Extent("a" * 32, 30, 2, 30)
    recorded.close()
    Recorded(tmp_path, Extent("short", 1)).close()
    assert read_extent(tmp_path) == Extent("short", 1)


@pytest.mark.parametrize("text", ["", "run 1 2", "run one 2 3", "ü 1 2 3"])
def test_an_unreadable_extent_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "recorded.txt").write_text(text, encoding="utf-8")
    assert read_extent(tmp_path) is None


def test_a_run_can_be_resumed_once_there_is_a_checkpoint(tmp_path: Path) -> None:
    assert run_to_resume(tmp_path / "nowhere") is None
    Recorded(tmp_path, Extent("run")).close()
    assert run_to_resume(tmp_path) is None
    Checkpoints(tmp_path).save_latest({})
    assert run_to_resume(str(tmp_path)) == "run"
