"""Tags of the host for runs that were made elsewhere: by a client, an orchestrator, `mlflow run`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.threads import start_thread
from mlflow_sysmetrics.settings import METRICS_TAG
from mlflow_sysmetrics.summary.summary import ALERT_TAG, VERDICT_TAG

_MEASURED = frozenset({METRICS_TAG, VERDICT_TAG, ALERT_TAG})
_FACTS = "mlflow_sysmetrics.facts.discovery"
_WAIT_SECONDS = 1.0  # once per process, in the sender's thread


def has_host_tags(tags: Mapping[str, str]) -> bool:
    """Returns whether a run says what machine it is on.

    Tags about what was measured do not, and neither do those of a job's other nodes, ``sys.<node>.<fact>``.
    """
    return any(key.startswith("sys.") and key.count(".") == 1 and key not in _MEASURED for key in tags)


def look_for_host_tags() -> None:
    """Begins to look for the host tags, which a sender may need.

    In a thread, because importing the facts takes tens of milliseconds. Not when they are needed: that may be
    at the exit, and an import then makes CPython forget that Ctrl-C has ended the program.
    """
    if _FACTS in sys.modules:
        _look()
        return
    with contextlib.suppress(ThreadUnavailable):
        start_thread(_look_beside_the_program, "sysmetrics-facts-import")


def _look_beside_the_program() -> None:
    before = _end_of_program()
    try:
        _look()
    finally:
        if _end_of_program() not in {before, None}:
            _remember_interruption()


def _end_of_program() -> int | None:
    """Returns which KeyboardInterrupt was the last exception that nothing caught; None if another one was."""
    last = getattr(sys, "last_value", None)  # set before the traceback is printed
    return id(last) if isinstance(last, KeyboardInterrupt) else None


def _remember_interruption() -> None:
    """Makes CPython end the process by SIGINT, as it does after a KeyboardInterrupt that nothing caught.

    It forgets that when it runs code given as text, as the import of a named tuple or a dataclass does. It
    remembers it when such code ends by a KeyboardInterrupt (`run_eval_code_obj` in CPython's pythonrun.c).
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")  # noqa: S102 - a constant


def _look() -> None:
    from mlflow_sysmetrics.facts import host_facts

    host_facts().tags(wait_seconds=0)


def host_tags_now_or_later(later: Callable[[dict[str, str]], object]) -> dict[str, str]:
    """Returns the complete host tags, or none and calls back with them when they are known."""
    from mlflow_sysmetrics.facts import host_facts

    facts = host_facts()
    tags = facts.tags(wait_seconds=_WAIT_SECONDS)
    if facts.complete or facts.has_no_thread:
        return tags
    facts.when_complete(later)
    return {}


class _Attachment(Protocol):
    """As `daemon.process.Attachment`, whose module imports this one."""

    def put_tags(self, tags: dict[str, str]) -> None:
        """Queues tags for the run."""

    def offer_host_tags(self) -> None:
        """Has the host tags set if the run has none."""


def put_host_tags(attachment: _Attachment, present: Mapping[str, str] | None, *, resumed: bool) -> None:
    """Has the delivery thread set the host tags that a run lacks.

    A run that this start created gets those that were not known then. One that was made elsewhere gets all
    of them if it has none; one that has some keeps those of the machine it began on.

    Args:
        attachment: the run.
        present: its tags; None if they are not known here.
        resumed: whether the run existed before.
    """
    if present is None or not has_host_tags(present):
        attachment.offer_host_tags()
        return
    if resumed:
        return
    from mlflow_sysmetrics.facts import host_facts

    facts = host_facts()
    if not facts.complete or facts.tags(wait_seconds=0).keys() - present.keys():
        facts.when_complete(
            lambda tags: attachment.put_tags({key: tags[key] for key in tags.keys() - present.keys()})
        )
