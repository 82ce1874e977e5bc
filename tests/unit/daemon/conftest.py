"""What tests of the daemon share: its threads, which live as long as a process, end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.daemon.watchdog import Watchdog
from mlflow_sysmetrics.runtime.loops import Loop


@pytest.fixture(autouse=True)
def _threads_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[Any] = []

    def note(owner: type) -> None:
        make = owner.__init__  # type: ignore[misc]

        def noted(one: object, *arguments: Any, **options: Any) -> None:
            make(one, *arguments, **options)
            made.append(one)

        monkeypatch.setattr(owner, "__init__", noted)

    for owner in (Watchdog, Sampler, JournalThread, Sender):
        note(owner)
    yield
    for one in made:
        _end(one)


def _end(one: Any) -> None:
    """Ends the thread as soon as it does not wait for something else."""
    loop: Loop | None
    match one:
        case Watchdog():
            loop = one._loop
        case Sampler():
            loop = one.thread.loop
        case _:
            loop = one.loop
    if loop is None or not loop.is_alive:
        return
    loop._step = lambda: False
    match one:
        case Watchdog():
            one._stirred.set()
        case Sampler():
            one._wake.set()
        case JournalThread():
            one.submit("the end", lambda: None)
        case Sender():
            with one._changed:
                one._changed.notify_all()
