"""The final check of every chaos test: the server has every sampled point exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from chaos_sampled import Evidence, Sampled
from chaos_server import TrackingServer


def assert_all_on_server(server: TrackingServer, sides: Iterable[Path]) -> int:
    """Fails unless the server has every sampled point exactly once, at the step of its time.

    Or at the next one, if a window ends in the second of the window before.

    Args:
        server: the tracking server.
        sides: the side files of the programs.

    Returns:
        The number of points.
    """
    said = Evidence.read(sides)
    assert said.taken, "nothing was sampled"
    stored = server.points(*said.run_ids)
    found = Counter(Sampled(one.run_id, one.key, one.timestamp, one.value) for one in stored)
    taken = Counter(said.taken)
    lost = taken - found
    # Each point of a tick interrupted by a kill may or may not have been journalled.
    foreign = found - taken - Counter(said.unsure)
    assert not lost, f"{lost.total()} of {taken.total()} points lost, such as {next(iter(lost))}"
    assert not foreign, f"{foreign.total()} points doubled or never sampled, such as {next(iter(foreign))}"
    started_at = server.started_at(*said.run_ids)
    ahead = [one.step - max(one.timestamp - started_at[one.run_id], 0) // 1000 for one in stored]
    wrong = [one for one, steps in zip(stored, ahead, strict=True) if steps not in {0, 1}]
    assert not wrong, f"{len(wrong)} points at a wrong step, such as {wrong[0]}"
    return found.total()


def assert_nothing_on_server(server: TrackingServer, sides: Iterable[Path]) -> None:
    """Fails if the server has any point of these programs."""
    run_ids = Evidence.read(sides).run_ids
    assert run_ids, "nothing was sampled"
    assert not server.points(*run_ids)
