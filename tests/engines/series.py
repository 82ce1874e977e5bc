"""What a run has from each node."""

from __future__ import annotations

from programs import Store


def sections(store: Store, run_id: str) -> set[str]:
    """Returns what stands before the last slash of the keys; no key has two points of a step.

    But for the last one, which closes a window that may have begun in the same second.
    """
    for key in store.keys(run_id):
        steps = [point.step for point in store.points(run_id, key)]
        assert len(steps[:-1]) == len(set(steps[:-1])), key
    return {key.rpartition("/")[0] for key in store.keys(run_id)}
