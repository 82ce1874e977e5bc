"""Tags that a job puts on its run: its id, by which other nodes find the run, and the facts of each node."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.daemon.delivery.host_tags import put_host_tags
from mlflow_sysmetrics.daemon.process import Attachment
from mlflow_sysmetrics.runtime.process_identity import this_process

JOB_TAG = "sysmetrics.job"
_ENDED = " ended"
_MILLISECONDS = 1000
_MOST_NODES = 64
# At most eight per node.
_FACTS = ("hostname", "cpu", "cpu_cores", "memory_gb", "gpu", "gpu_count", "node", "cloud")
_NODE_NUMBER = re.compile(r"node_(\d+)")


def job_tag(key: str, *, ended: bool = False) -> dict[str, str]:
    """Returns the tag by which the other processes of a job find its run."""
    began = int(this_process()["began"] * _MILLISECONDS)
    return {JOB_TAG: f"{key} {began}{_ENDED if ended else ''}"}


def has_owner(tags: Mapping[str, str]) -> bool:
    """Returns whether the owner of a run has not ended it yet."""
    value = tags.get(JOB_TAG, "")
    return bool(value) and not value.endswith(_ENDED)


class RunTags:
    """What the leader of a node has told the run about the job and the node.

    Args:
        job: the job.
    """

    def __init__(self, job: Job | None) -> None:
        self._job = job
        self._of_owner: tuple[Mapping[str, str] | None, bool] | None = None
        self._job_is_put = self._host_is_put = self._node_is_put = False

    def describe(self, tags: Mapping[str, str] | None, *, resumed: bool) -> None:
        """Says that this process owns the run.

        Args:
            tags: what the run has; None if unknown.
            resumed: whether it existed before.
        """
        self._of_owner = tags, resumed

    def put(self, attachment: Attachment, name: str | None, owned: str | None, *, host_tags: bool) -> None:
        """Puts what is missing on the run.

        Args:
            attachment: the run.
            name: name of the node in the keys; None for plain keys.
            owned: the key of the job if the owner of the run is on this node.
            host_tags: whether the user wants tags about the machines.
        """
        if attachment.announcer is not None:
            attachment.announcer.speaks = owned is not None or name is None
        if owned is not None and not self._job_is_put:
            self._job_is_put = True
            attachment.put_tags(job_tag(owned))
        if self._host_is_put or not host_tags:
            return
        if self._of_owner is not None:
            self._host_is_put = True
            tags, resumed = self._of_owner
            put_host_tags(attachment, tags, resumed=resumed)
        elif owned is not None or name is None:  # also if the owner joins a node that has its tags already
            self._host_is_put = True
            attachment.offer_host_tags()
        elif not self._node_is_put:
            self._node_is_put = True
            node_tags(name, self._job, attachment.put_tags)


def node_tags(name: str, job: Job | None, put: Callable[[dict[str, str]], Any]) -> None:
    """Has the facts about this node put on the run, now or when they are known.

    Args:
        name: name of the node in the keys.
        job: the job.
        put: puts tags on the run.
    """
    number = _NODE_NUMBER.fullmatch(name)
    place = int(number[1]) if number else (job.node_rank if job is not None else None)
    if place is not None and place >= _MOST_NODES:
        return
    from mlflow_sysmetrics.facts import host_facts

    def put_known(tags: Mapping[str, str]) -> None:
        put({f"sys.{name}.{fact}": tags[f"sys.{fact}"] for fact in _FACTS if f"sys.{fact}" in tags})

    facts = host_facts()
    known = facts.tags(wait_seconds=0)
    if facts.complete or facts.has_no_thread:
        put_known(known)
    else:
        facts.when_complete(put_known)


def is_open(value: str, key: str, after: int | None) -> bool:
    """Returns whether the tag of a run says that it is the job's, and that its owner has not ended it.

    Args:
        value: the tag.
        key: of the job.
        after: milliseconds since 1970 before which its owner had not started; None if any will do.
    """
    name, _, began = value.rpartition(" ")
    return name == key and began.isdecimal() and (after is None or int(began) >= after)
