"""What a run has from each node."""

from __future__ import annotations

from programs import Store


def sections(store: Store, run_id: str) -> set[str]:
    """Returns what stands before the last slash of the keys; no key has two points of a step."""
    for key in store.keys(run_id):
        steps = [point.step for point in store.points(run_id, key)]
        assert len(steps) == len(set(steps)), (key, steps)
    return {key.rpartition("/")[0] for key in store.keys(run_id)}
