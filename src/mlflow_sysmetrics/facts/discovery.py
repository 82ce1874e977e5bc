"""Finds every fact once per process, in a background thread, so that `tags()` rarely has to wait."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.facts.fact_list import FACTS, Fact, preload
from mlflow_sysmetrics.facts.operating_systems import OperatingSystem, Sources, operating_system
from mlflow_sysmetrics.facts.values import gigabytes, shortened
from mlflow_sysmetrics.machine.command import Commands, RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.interruptions import reraise_interruption
from mlflow_sysmetrics.runtime.native import Event, Lock
from mlflow_sysmetrics.runtime.threads import Thread, start_thread

_logger = logging.getLogger(__name__)

Tags = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known at one moment; each update replaces the object, so no reader sees half of one."""

    tags: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def and_(self, tags: Mapping[str, str], problem: str) -> _Found:
        return _Found({**self.tags, **tags}, (*self.problems, problem) if problem else self.problems)


class HostFacts:
    """What the host is, as tags.

    The first call of `tags` starts one daemon thread that looks for every fact once and ends.

    Args:
        host: the machine.
        system: functions of the operating system; by default those of this process's system.
        run: runs a command; by default a real one, all of them together within 3 s.
        facts: the facts to look for, in this order.
    """

    def __init__(
        self,
        host: Host,
        *,
        system: OperatingSystem | None = None,
        run: RunCommand | None = None,
        facts: Sequence[Fact] = FACTS,
    ) -> None:
        self._host = host
        self._system = system or operating_system()
        self._run = run
        self._facts = facts
        self._found = _Found()
        self._forget_threads()

    def _forget_threads(self) -> None:
        self._lock = Lock()
        self._finished = Event()
        self._thread: Thread | None = None
        self._started_at = 0.0
        self._has_no_thread = False
        self._callbacks: list[Callable[[Tags], object]] = []

    @property
    def complete(self) -> bool:
        """Whether every fact has been looked for."""
        return self._finished.is_set()

    @property
    def has_no_thread(self) -> bool:
        """Whether the search is not complete because no thread can be started."""
        return self._has_no_thread

    def tags(self, wait_seconds: float = 1.0) -> Tags:
        """Returns what is known now.

        Waits for all facts, but never longer than `wait_seconds` after the search began: a driver that hangs
        delays a program once, not at each of its runs.
        """
        if not self._finished.is_set():
            self._start()
            if self._thread is not None:
                self._finished.wait(max(0.0, self._started_at + wait_seconds - time.monotonic()))
        found = self._found
        tags = dict(found.tags)
        problems = found.problems
        try:
            tags["sys.disk_free_gb"] = gigabytes(self._host.disk_usage(".").free)
        except OSError as error:
            reraise_interruption(error)  # TimeoutError is an OSError, and a favourite of signal handlers
            problems = (*problems, f"disk: {_without_path(error)}")
        if problems:
            tags["sysmetrics.error"] = shortened("; ".join(problems))
        return tags

    def when_complete(self, callback: Callable[[Tags], object]) -> None:
        """Calls `callback` with the complete tags: now if there are any, else at the end of the facts thread.

        Does not start the search; `tags` does.
        """
        with self._lock:
            if not self._finished.is_set():
                self._callbacks.append(callback)
                return
        callback(self.tags())

    def after_fork(self) -> None:
        """Makes this object usable in a forked child: new locks, and a new search if it was not complete."""
        complete = self._finished.is_set()
        self._forget_threads()
        if complete:
            self._finished.set()
        else:
            self._found = _Found()

    def _start(self) -> None:
        if self._thread is None:
            preload(self._system, self._host)  # without the lock: imports wait for those of other threads
        with self._lock:
            if self._thread is not None:
                return
            self._started_at = time.monotonic()
            try:
                self._thread = start_thread(self._find_all, "sysmetrics-facts")
            except ThreadUnavailable:
                self._has_no_thread = True
            else:
                self._has_no_thread = False
        if self._has_no_thread:
            self._find_quick()

    def _find_all(self) -> None:
        run = self._run or Commands(self._host.environ)
        sources = Sources(host=self._host, system=self._system, run=run)
        found = _Found()
        for fact in self._facts:
            found = self._found = found.and_(*_look_for(fact, sources))
        with self._lock:
            self._finished.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self.tags())
            except Exception:  # the listener's; the others are still called
                _logger.exception("A listener for the facts about this host failed")

    def _find_quick(self) -> None:
        """Finds, once, the facts that need neither a command nor a driver, for a process without threads."""
        if self._found.tags:
            return
        sources = Sources(host=self._host, system=self._system, run=_no_command)
        found = _Found()
        for fact in self._facts:
            if fact.quick:
                found = found.and_(*_look_for(fact, sources))
            else:
                found = found.and_({}, f"{fact.name}: no thread could be started")
        self._found = found


def _look_for(fact: Fact, sources: Sources) -> tuple[Tags, str]:
    """Returns a fact's tags, and why some are missing ("" if none is)."""
    tags: Tags = {}
    reason = ""
    try:
        for tag, value in fact.find(sources):
            tags[tag] = shortened(value)
    except Unavailable as error:
        reason = f"{fact.name}: {error}"
    except OSError as error:
        reraise_interruption(error)  # where no thread can be started, this is the program's
        reason = f"{fact.name}: {_without_path(error)}"
    except Exception as error:  # no fact may break the others, or the run
        reraise_interruption(error)
        _logger.debug("Looking for the fact %s failed", fact.name, exc_info=True)
        reason = f"{fact.name}: {type(error).__name__}"
    return {tag: value for tag, value in tags.items() if value}, reason


def _without_path(error: OSError) -> str:
    """Returns the reason without the file's name: a path may contain a user's name."""
    return error.strerror or type(error).__name__


def _no_command(command: Sequence[str]) -> str:
    raise Unavailable("no thread could be started to run a command")


class _OfThisProcess:
    """Holds the one `HostFacts` of this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._facts: HostFacts | None = None

    def get(self) -> HostFacts:
        with self._lock:
            if self._facts is None:
                self._facts = HostFacts(Host())
            return self._facts

    def after_fork(self) -> None:
        """Replaces the lock, which a thread of the parent may hold, and drops incomplete facts."""
        self._lock = Lock()
        facts = self._facts
        if facts is None:
            return
        # Code that still holds the parent's object must not wait for a thread that does not exist here.
        facts.after_fork()
        if not facts.complete:
            self._facts = None


_of_this_process = _OfThisProcess()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_this_process.after_fork)


def host_facts() -> HostFacts:
    """Returns the facts of the real host, one object per process.

    A forked child keeps complete facts and looks for incomplete ones again.
    """
    return _of_this_process.get()
