"""Tags of the host for runs that were made elsewhere: by a client, an orchestrator, `mlflow run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlflow_sysmetrics.settings import METRICS_TAG

_WAIT_SECONDS = 1.0  # once per process, in the sender's thread


def has_host_tags(tags: Mapping[str, str]) -> bool:
    """Returns whether a run says what machine it is on. `METRICS_TAG` alone does not."""
    return any(key.startswith("sys.") and key != METRICS_TAG for key in tags)


def host_tags_now_or_later(later: Callable[[dict[str, str]], object]) -> dict[str, str]:
    """Returns the complete host tags, or none and calls back with them when they are known."""
    from mlflow_sysmetrics.facts import host_facts  # late: no attach has to wait for it

    facts = host_facts()
    tags = facts.tags(wait_seconds=_WAIT_SECONDS)
    if facts.complete or facts.has_no_thread:
        return tags
    facts.when_complete(later)
    return {}
