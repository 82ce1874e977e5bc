"""Which process samples a node for a run: the one that holds a lock, which the kernel releases at its death.

Each run has a directory per node, among the temporary files of this user on this machine. In it are the lock;
`node.json`, in which the leader records the node's name, so that its successor continues the same keys;
`steps.json`, where its steps are ahead of the clock; and a file per member, with its processes and the GPUs
that it sees. Others may be able to write where the directory
is made: it must be this user's alone, and no link is followed in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.daemon.journal.open_file import open_to_read
from mlflow_sysmetrics.daemon.journal.ownership import Ownership
from mlflow_sysmetrics.errors import JournalUnavailable, Unavailable
from mlflow_sysmetrics.runtime.process_identity import is_gone, this_process

_NODE = "node.json"
_STEPS = "steps.json"
_MEMBER = ".member"
_MOST_BYTES = 65536
_MOST_MEMBERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process of the job on this node.

    Attributes:
        process: what identifies it, from `this_process`.
        node_rank: number of the node, as its launcher sees it; None if unknown.
        pids: processes that are the job's with their descendants.
        gpus: UUIDs of the GPUs that it may see; None if unknown.
        are_held: whether these were given as the GPUs of the job, whatever the environment shows.
        owns: the key of the job if it owns the run, else None.
    """

    process: Mapping[str, Any]
    node_rank: int | None = None
    pids: tuple[int, ...] = ()
    gpus: tuple[str, ...] | None = None
    are_held: bool = False
    owns: str | None = None

    @property
    def is_for_processes_that_are_gone(self) -> bool:
        """Whether it was to have other processes sampled, and all of them have ended."""
        return bool(self.pids) and not any(pid == os.getpid() or exists(pid) for pid in self.pids)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """What the processes of a node have agreed on for a run.

    Attributes:
        name: the name of the node in the keys; None for plain keys.
        started_at: when the run started, in milliseconds since 1970; None if unknown.
        ended_at: when the owner of the run has ended it, in seconds since 1970; 0 if it has not. Processes
            that take part from then on do so in another attempt, or in a run that was resumed.
    """

    name: str | None = None
    started_at: int | None = None
    ended_at: float = 0.0


def base_directory() -> Path:
    """Returns this user's directory for elections on this machine, which is made if it does not exist.

    Raises:
        Unavailable: it cannot be made, or others could write in it.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    path = Path(tempfile.gettempdir(), f"mlflow-sysmetrics-{user}")
    _make(path)
    return path


def _make(path: Path) -> None:
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror or error}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise Unavailable(f"{path} is not a directory")
    foreign = hasattr(os, "geteuid") and status.st_uid != os.geteuid()
    if foreign or (os.name != "nt" and stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)):
        raise Unavailable(f"{path}: others can write in it")


def digest(*parts: str) -> str:
    """Returns a name for files that belong to some texts, which may hold secrets."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


class Election:
    """The processes of a job that share one sampler for one run on one node.

    Args:
        base: the directory of all elections.
        key: what they have in common: tracking server, run, node.

    Raises:
        Unavailable: files cannot be kept.
    """

    def __init__(self, base: Path, key: str) -> None:
        self.directory = base / key
        _make(self.directory)
        self._node = self.directory / _NODE
        self._steps = self.directory / _STEPS
        self._own = self.directory / f"{os.getpid()}-{os.urandom(3).hex()}{_MEMBER}"
        self._ownership: Ownership | None = None
        self._seen: int | None = None

    def join(self, member: Member) -> None:
        """Makes this process known to the leader. Failing that it can still lead."""
        write(self._own, {**asdict(member), "process": dict(member.process)})

    def leave(self) -> None:
        """Takes this process off the list, and lets another one lead."""
        with contextlib.suppress(OSError):
            self._own.unlink()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.release()

    def lead(self) -> bool:
        """Returns whether this process leads; takes the lock if it is free."""
        if self._ownership is None:
            try:
                self._ownership = Ownership.acquire(self._node)
            except JournalUnavailable as error:
                raise Unavailable(str(error)) from error
        return self._ownership is not None

    def keeps_leading(self, now: float) -> bool:
        """Returns whether this process still has the lock, which is retaken if its file was deleted.

        Args:
            now: seconds on a monotonic clock.
        """
        return self._ownership is not None and self._ownership.check(now)

    def record(self) -> NodeRecord | None:
        """Returns what was agreed on; None before the first leader."""
        found = read(self._node)
        if found is None:
            return None
        name, started_at, ended = (found.get(field) for field in ("name", "started_at", "ended_at"))
        return NodeRecord(
            name=name if isinstance(name, str) else None,
            started_at=started_at if isinstance(started_at, int) else None,
            ended_at=ended if isinstance(ended, (int, float)) else 0.0,
        )

    def agree(self, record: NodeRecord) -> None:
        """Records what was agreed on."""
        write(self._node, asdict(record))

    def end(self) -> None:
        """Records that the owner of the run has ended it."""
        self.agree(replace(self.record() or NodeRecord(), ended_at=time.time()))

    def steps_ahead(self) -> int:
        """Returns by how many milliseconds the steps of the leader before are ahead of the clock."""
        ahead = (read(self._steps) or {}).get("ahead")
        return ahead if isinstance(ahead, int) else 0

    def note_steps_ahead(self, ahead: int) -> None:
        """Records by how many milliseconds the steps of this leader are ahead of the clock."""
        write(self._steps, {"ahead": ahead})

    def has_changed(self) -> bool:
        """Returns whether a file has come, gone or been replaced since the last call: one system call."""
        try:
            changed = self.directory.stat().st_mtime_ns
        except OSError:
            return False
        before, self._seen = self._seen, changed
        return before != changed

    def members(self) -> list[Member]:
        """Returns the living members, and deletes the files of those that have ended."""
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self.directory.glob(f"*{_MEMBER}"))[:_MOST_MEMBERS]:
                member = _member(read(path))
                if member is None:
                    continue
                if not is_gone(member.process):
                    found.append(member)
                else:
                    with contextlib.suppress(OSError):
                        path.unlink()
        return found


def smallest_rank(members: Sequence[Member]) -> int | None:
    """Returns the smallest number of the node that its processes have from their launcher, if they do."""
    return min((one.node_rank for one in members if one.node_rank is not None), default=None)


def this_member(**named: Any) -> Member:
    """Returns this process as a member; the arguments are those of `Member`."""
    return Member(process=this_process(), **named)


def _member(found: Mapping[str, Any] | None) -> Member | None:
    if found is None or not isinstance(found.get("process"), dict):
        return None
    gpus, rank, owns = found.get("gpus"), found.get("node_rank"), found.get("owns")
    return Member(
        process=found["process"],
        node_rank=rank if isinstance(rank, int) else None,
        pids=tuple(pid for pid in found.get("pids", ()) if isinstance(pid, int) and pid > 0),
        gpus=None if not isinstance(gpus, list) else tuple(uuid for uuid in gpus if isinstance(uuid, str)),
        are_held=found.get("are_held") is True,
        owns=owns if isinstance(owns, str) else None,
    )


def read(path: Path) -> Mapping[str, Any] | None:
    """Returns the object in a small JSON file of ours; None if there is none."""
    try:
        with open_to_read(path) as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a small JSON file; without space or permission it stays as it is."""
    new = path.with_name(f".{path.name}-{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(content, file)
            new.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()


def exists(pid: int) -> bool:
    """Returns whether a process has an id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True
