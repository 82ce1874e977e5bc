"""The job that this process belongs to, as its launcher describes it in the environment.

Ranks are what the launcher says, and may be wrong or change at a restart: they name things, and never decide
what a node is (see `node`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_sysmetrics.facts.surroundings import NOT_AN_ID, Launcher, first_set, launchers

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_NUMBER = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job of one or more processes.

    Attributes:
        scheduler: name of the launcher, as in the tag `sys.scheduler`; "env" for torch's env:// variables.
        job_id: what all its processes have in common, and no other job; None if the launcher does not say.
        attempt: how often this process's part of it was restarted; not the same on all nodes under torchrun.
        size: number of processes; None if the launcher does not say.
        rank: number of this process; None if unknown.
        local_rank: its number on this node; None if unknown.
        local_size: number of processes on this node; None if unknown.
        nodes: number of nodes; None if unknown.
        node_rank: number of this node, at most the rank; None if unknown.
    """

    scheduler: str
    job_id: str | None = None
    attempt: int = 0
    size: int | None = None
    rank: int | None = None
    local_rank: int | None = None
    local_size: int | None = None
    nodes: int | None = None
    node_rank: int | None = None

    def __str__(self) -> str:
        """Returns one line about it, for people."""
        parts = [
            _counted("rank", self.rank, self.size),
            _counted("local rank", self.local_rank, self.local_size),
            _counted("node", self.node_rank, self.nodes),
            None if not self.attempt else f"attempt {self.attempt}",
        ]
        return f"{self.scheduler} {self.job_id or 'without an id'}: {', '.join(filter(None, parts))}"

    @property
    def is_several(self) -> bool:
        """Whether there may be other processes: the pods of an Indexed Job do not know their number."""
        return self.size is None or self.size > 1

    @property
    def spans_nodes(self) -> bool:
        """Whether keys name the node: unless there certainly is only one."""
        return self.is_several and self.nodes != 1

    @property
    def likely_local_size(self) -> int | None:
        """The number of processes on this node; if the launcher does not say, as many as on the others."""
        if self.local_size or not self.size or not self.nodes:
            return self.local_size
        return -(-self.size // self.nodes)

    @property
    def key(self) -> str | None:
        """What the run of this job is tagged with; None if the job has no id."""
        return None if self.job_id is None else f"{self.scheduler}:{self.job_id}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Job | None:
        """Returns the job of the innermost launcher that numbers its processes; None if there is none."""
        present = launchers(environ)
        launcher = next((one for one in reversed(present) if _numbers(environ, one)), None)
        if launcher is None:
            return None
        size = _number(environ, launcher.size)
        rank = _number(environ, launcher.rank)
        local_size = _number(environ, launcher.local_size)
        return cls(
            scheduler=launcher.name,
            job_id=_job_id(environ, present, launcher),
            attempt=_number(environ, launcher.attempt) or 0,
            size=size,
            rank=rank,
            local_rank=_number(environ, launcher.local_rank),
            local_size=local_size,
            nodes=_nodes(_number(environ, launcher.nodes), size, local_size),
            node_rank=_node_rank(_number(environ, launcher.node_rank), rank, local_size),
        )


def _counted(name: str, number: int | None, of: int | None) -> str | None:
    if number is None:
        return None
    return f"{name} {number}" if of is None else f"{name} {number} of {of}"


def _numbers(environ: Mapping[str, str], launcher: Launcher) -> bool:
    """Returns whether a launcher says which process of how many this is."""
    known = [
        _number(environ, variables) is not None for variables in (launcher.rank, launcher.size) if variables
    ]
    return bool(known) and all(known)


def _nodes(given: int | None, size: int | None, local_size: int | None) -> int | None:
    if size == 1:
        return 1
    if given or not size or not local_size:
        return given
    return -(-size // local_size)


def _node_rank(given: int | None, rank: int | None, local_size: int | None) -> int | None:
    if given is not None or rank is None:
        return given
    return rank // local_size if local_size else rank


def _job_id(environ: Mapping[str, str], present: list[Launcher], launcher: Launcher) -> str | None:
    """Returns the id of the job, from the launcher or the allocation that it runs in."""
    own = first_set(environ, launcher.job)
    if own == NOT_AN_ID:
        own = None
    if own is not None and launcher.name == "kubernetes":
        # A pod of an Indexed Job is named <job>-<index> or <job>-<index>-<five letters>.
        own = re.sub(rf"-{environ.get('JOB_COMPLETION_INDEX', '')}(-[a-z0-9]{{5}})?$", "", own)
    if own is not None:
        return own
    outer = [
        first_set(environ, one.job) for one in present if one is not launcher and one.name != "kubernetes"
    ]
    parts = [*outer, *(environ.get(variable) for variable in _ADDRESS)]
    return "/".join(part for part in parts if part and part != NOT_AN_ID) or None


def _number(environ: Mapping[str, str], variables: tuple[str, ...]) -> int | None:
    text = (first_set(environ, variables) or "").strip()
    return int(text) if _NUMBER.fullmatch(text) else None
