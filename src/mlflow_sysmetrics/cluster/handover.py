"""What one sampler of a node leaves to the next: no step of a series is used by both.

Steps are seconds since the run started. The next sampler begins in a later second than the one in which the
lock became free. Steps may be ahead of the clock, as that of a last point is which ends in the second of the
point before; by how much is in a file beside the lock before the point is made.
"""

from __future__ import annotations

import time

from mlflow_sysmetrics.cluster.election import Election, NodeRecord
from mlflow_sysmetrics.daemon.process import Attachment

_MILLISECONDS = 1000


def seconds_to_next_step(started_at: int | None) -> float:
    """Returns how long the second of a run lasts in which a sampler before may have made its last point.

    Args:
        started_at: when the run started, in milliseconds since 1970; None if unknown.
    """
    return 1.0 if started_at is None else 1 - (time.time() - started_at / _MILLISECONDS) % 1


def take_over(attachment: Attachment, election: Election, record: NodeRecord | None, free_at: int) -> None:
    """Makes the steps of a run go on from those of the sampler before, and known to the one after.

    Args:
        attachment: the run, before it begins.
        election: of this node, which this process has won.
        record: what the sampler before has left; None if there was none.
        free_at: when the lock was free at the latest, in milliseconds since 1970.
    """
    steps = attachment.steps
    if record is not None:
        steps.continue_from(free_at, election.steps_ahead())
    steps.moved = election.note_steps_ahead


def has_made_last_point(attachment: Attachment | None, wait: float) -> bool:
    """Returns whether a run gets no more points from this process.

    Args:
        attachment: the run; None if this process has never sampled it.
        wait: longest wait in seconds.
    """
    return attachment is None or attachment.series is None or attachment.series.ended.wait(wait)


def refusal(attachment: Attachment) -> str | None:
    """Returns why the server rejects the run for good, as one that was deleted; None if it does not."""
    return None if attachment.series is None else attachment.series.channel.queue.refused
