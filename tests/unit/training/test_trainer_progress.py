"""The progress bar is shown where somebody can see it."""

from __future__ import annotations

import io
import sys

import pytest

pytest.importorskip("tqdm")

from mlflow_sysmetrics.training.trainer.session import _Progress

pytestmark = pytest.mark.heavy


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, wanted: bool | None) -> str:
    """Returns the output of a training that is resumed in its second epoch."""
    monkeypatch.setattr(sys, "stderr", stream)
    progress = _Progress(wanted=wanted, epochs=2, batches=3, epoch=1, step=3)
    progress.epoch(2)
    for _ in range(3):
        progress.step()
    progress.metrics({"val_loss": 0.123456})
    progress.close()
    return stream.getvalue()


@pytest.mark.parametrize("wanted", [None, True])
def test_a_terminal_shows_it(monkeypatch: pytest.MonkeyPatch, wanted: bool | None) -> None:
    text = shown(monkeypatch, Terminal(), wanted=wanted)
    assert "epoch 2/2" in text
    assert "6/6" in text
    assert "val_loss=0.1235" in text


def test_a_file_gets_it_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), wanted=None) == ""
    assert "6/6" in shown(monkeypatch, io.StringIO(), wanted=True)


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), wanted=False) == ""
