"""Finds every fact once per process, in a background thread, so that `tags()` rarely has to wait."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.facts.fact_list import (
    FACTS,
    Fact,
    FreeSpace,
    Limits,
    OperatingSystem,
    Sources,
    look_for,
    operating_system,
    preload,
    without_path,
)
from mlflow_sysmetrics.facts.values import gigabytes, shortened
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.machine.command import Commands, RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, PendingCall
from mlflow_sysmetrics.runtime.native import Event, Lock
from mlflow_sysmetrics.runtime.threads import Thread, run_beside, start_thread

_logger = Log(__name__)

Tags = dict[str, str]

# A driver that starts its GPUs takes longer: its facts reach the run when they are there.
_HANGS_SECONDS = 5.0
_MOST_CALLBACKS = 100  # of runs that wait for a fact that may never answer


class _Found(NamedTuple):
    """What is known at one moment; each update replaces the object, so no reader sees half of one."""

    tags: Mapping[str, str]
    problems: Mapping[str, str]

    def and_(self, fact: Fact, tags: Mapping[str, str], problem: str) -> _Found:
        known = {tag: value for tag, value in self.tags.items() if tag != fact.limit_tag}
        problems = {name: text for name, text in self.problems.items() if name != fact.name}
        return _Found(
            {**known, **tags}, {**problems, fact.name: f"{fact.name}: {problem}"} if problem else problems
        )


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
        self._found = _Found({}, {})
        self._free_space = FreeSpace(host)
        self._limits = Limits(self._system, host)
        self._forget_threads()

    def _forget_threads(self) -> None:
        self._lock = Lock()
        self._finished = Event()
        self._thread: Thread | None = None
        self._started_at = 0.0
        self._has_no_thread = False
        self._callbacks: list[Callable[[Tags], object]] = []
        self._hanging: set[str] = set()

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
        elif self._limits.have_changed():
            with contextlib.suppress(CallTimeout, ThreadUnavailable):
                PendingCall(self._find_limits, "sysmetrics-facts").result(wait_seconds)
        found = self._found
        tags = dict(found.tags)
        problems = tuple(found.problems.values())
        try:
            tags["sys.disk_free_gb"] = gigabytes(self._free_space.read())
        except Unavailable as reason:
            problems = (*problems, f"disk: {reason}")
        except OSError as error:
            reraise_interruption(error)  # TimeoutError is an OSError, and a favourite of signal handlers
            problems = (*problems, f"disk: {without_path(error)}")
        if problems:
            tags["sysmetrics.error"] = shortened("; ".join(problems))
        return tags

    def when_complete(self, callback: Callable[[Tags], object]) -> None:
        """Calls `callback` with the complete tags: now if there are any, else at the end of the facts thread.

        Does not start the search; `tags` does.
        """
        with self._lock:
            finished = self._finished.is_set()
            if not finished or self._hanging:
                self._callbacks = [*self._callbacks, callback][-_MOST_CALLBACKS:]
        if finished:
            callback(self.tags())

    def after_fork(self) -> None:
        """Makes this object usable in a forked child: new locks, and a new search if it was not complete."""
        complete = self._finished.is_set()
        self._forget_threads()
        self._free_space.after_fork()
        if complete:
            self._finished.set()
        else:
            self._found = _Found({}, {})

    def _start(self) -> None:
        load = partial(preload, self._system, self._host)
        # Without the lock: imports wait for those of other threads.
        if self._thread is None and not run_beside(load):
            load()
        with self._lock:
            if self._thread is not None:
                return
            self._started_at = time.monotonic()
            try:
                self._thread = start_thread(self._find_all, "sysmetrics-facts-watch")
            except ThreadUnavailable:
                self._has_no_thread = True
            else:
                self._has_no_thread = False
        if self._has_no_thread:
            self._find_quick()

    def _find_all(self) -> None:
        """Looks for the facts, one after another; goes on without one that does not answer."""
        self._limits.watch()
        sources = Sources(host=self._host, system=self._system, run=self._run or Commands(self._host.environ))
        search = _Search(self._facts, sources, self._add, self._found_late)
        while not search.wait():
            fact = search.leave_behind()
            if fact is not None:
                self._hanging.add(fact.name)
                self._add(fact, {}, f"no answer within {_HANGS_SECONDS:g} s")
        self._finished.set()
        self._call_back()

    def _find_limits(self) -> None:
        """Looks again for what depends on limits of the job."""
        self._limits.watch()
        sources = Sources(host=self._host, system=self._system, run=_no_command)
        for fact in self._facts:
            if fact.limit_tag is not None:
                self._add(fact, *look_for(fact, sources))

    def _found_late(self, fact: Fact, tags: Tags, problem: str) -> None:
        self._hanging.discard(fact.name)
        self._add(fact, tags, problem)
        if self._finished.is_set():
            self._call_back()

    def _add(self, fact: Fact, tags: Tags, problem: str) -> None:
        with self._lock:
            self._found = self._found.and_(fact, tags, problem)

    def _call_back(self) -> None:
        """Calls the listeners, and again whenever a fact that did not answer does."""
        with self._lock:
            callbacks = self._callbacks
            if not self._hanging:
                self._callbacks = []
        for callback in callbacks:
            try:
                callback(self.tags())
            except Exception:  # the listener's; the others are still called
                _logger.warning("A listener for the facts about this host failed", exc_info=True)

    def _find_quick(self) -> None:
        """Finds, once, the facts that need neither a command nor a driver, for a process without threads."""
        if self._found.tags:
            return
        sources = Sources(host=self._host, system=self._system, run=_no_command)
        found = _Found({}, {})
        for fact in self._facts:
            if fact.quick:
                found = found.and_(fact, *look_for(fact, sources))
            else:
                found = found.and_(fact, {}, "no thread could be started")
        self._found = found


_Add: TypeAlias = Callable[[Fact, Tags, str], None]


class _Search:
    """Looks for facts in a thread, and goes on in another one when a fact does not answer.

    Args:
        facts: the facts.
        sources: what they read.
        add: called with each fact, its tags, and why some are missing.
        add_late: called instead for a fact that was left behind.
    """

    def __init__(self, facts: Sequence[Fact], sources: Sources, add: _Add, add_late: _Add) -> None:
        self._left = iter(facts)
        self._sources = sources
        self._add = add
        self._add_late = add_late
        self._start()

    def _start(self) -> None:
        self._ended = ended = Event()
        self._current: tuple[Fact, float] | None = None
        try:
            start_thread(partial(self._look, ended), "sysmetrics-facts")
        except ThreadUnavailable:  # this thread has to do
            self._look(ended)

    def wait(self) -> bool:
        """Waits until all facts are found, and returns True; False if one does not answer."""
        while not self._ended.wait(_HANGS_SECONDS / 10):
            current = self._current
            if current is not None and time.monotonic() - current[1] > _HANGS_SECONDS:
                return False
        return True

    def leave_behind(self) -> Fact | None:
        """Goes on with the facts after the current one, which is returned."""
        current = self._current
        self._start()
        return None if current is None else current[0]

    def _look(self, ended: Event) -> None:
        for fact in self._left:
            self._current = fact, time.monotonic()
            found = look_for(fact, self._sources)
            if self._ended is not ended:  # another thread looks for the rest
                self._add_late(fact, *found)
                return
            self._add(fact, *found)
        self._current = None
        ended.set()


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
