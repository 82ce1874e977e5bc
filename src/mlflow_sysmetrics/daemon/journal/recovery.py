"""Delivers the points of processes that died: in the background of the next process, or in `sync`.

An orphan is a journal whose owner is dead. The process that gets its lock delivers the waiting points,
acknowledges them in the journal, and deletes it. A run in it that was never detached was cut off by the death
of its process; the journal is then kept, without its points, so that `reap` can find out what became of the
run. Points that a server rejects are kept too, for a month: it may not be the server that has the run. A
journal that is partly not understood is set aside after the rest was delivered; see `set_aside`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlflow_sysmetrics.daemon.delivery import sink
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.orphan import Orphan
from mlflow_sysmetrics.daemon.journal.scan import Damage
from mlflow_sysmetrics.daemon.journal.set_aside import delete_expired
from mlflow_sysmetrics.daemon.journal.spool import claim, journals
from mlflow_sysmetrics.daemon.journal.store_files import MissingStores
from mlflow_sysmetrics.daemon.journal.thread import why
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.mlflow_api.tracking_uris import is_trusted, redacted, with_secrets
from mlflow_sysmetrics.runtime.clock import Clock, SystemClock
from mlflow_sysmetrics.runtime.native import Event

# Each orphan takes two open files of a foreign process. Orphans of a server that is away stay open, and must
# leave room for those of other servers. If many servers are away, the orphans take turns.
_MAX_CLAIMED = 16
_MAX_PER_SERVER = 4
# For an orphan that only waits for `reap`, each run costs a request to see whether it still has to.
_MAX_REQUESTS = 20
_STEP_SECONDS = 1.0  # so that a foreground replay can be interrupted while it waits

_logger = Log()


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of delivering one orphan.

    Attributes:
        delivered: points that its servers accepted.
        dropped: points that were given up: their run was deleted, or unknown for a month, or the journal had
            thinned them.
        waiting: points that still wait.
        faults: why they wait, one line per server, without secrets.
        kept: why points wait that their server rejects, and until when, one line per run.
        damage: what in it is not understood; None if everything is.
        aside: where it was set aside, if it is damaged and nothing else keeps it.
        refused: which single points were given up because their server rejects them, one line per run.
    """

    delivered: int
    dropped: int
    waiting: int
    faults: tuple[str, ...]
    kept: tuple[str, ...] = ()
    damage: Damage | None = None
    aside: Path | None = None
    refused: tuple[str, ...] = ()


def replay(
    journal: Journal,
    open_sink: Callable[[str], Sink] | None = None,
    progress: Callable[[int], None] = lambda _: None,
    *,
    tracking_uri: str | None = None,
    wait_seconds: float = 10.0,
    clock: Clock | None = None,
) -> Replayed:
    """Delivers the waiting points of an orphan in the foreground, and closes it.

    Args:
        journal: from `spool.claim`; closed on return, and deleted if it is no longer needed.
        open_sink: opens the sink of a tracking server; by default the real one, which sends credentials only
            to the server of `tracking_uri`.
        progress: called with the number of points delivered or given up since the last call.
        tracking_uri: used, with its credentials, for the runs of that server.
        wait_seconds: longest wait for a server that does not answer; its points then stay on disk.
        clock: the time source.
    """
    clock = clock or SystemClock()
    orphan = Orphan(journal, progress)
    known = [] if tracking_uri is None else [tracking_uri]
    open_sink = open_sink or partial(sink.open_sink, trusts=lambda uri: is_trusted(uri, known))
    delivered = dropped = 0
    faults: list[str] = []
    kept: list[str] = []
    refusals: list[str] = []
    try:
        for uri, queues in orphan.by_server().items():
            sender = Sender(with_secrets(uri, known), open_sink, clock)
            for queue in queues:
                sender.adopt(queue)
            _deliver(sender, wait_seconds, clock)
            sender.disconnect()
            counts = sender.counts_of_replayed()
            delivered += counts.delivered
            dropped += counts.dropped
            refusals += [_refused(uri, queue) for queue in queues if queue.refusals]
            refused = [queue for queue in queues if queue.refused is not None and not queue.empty]
            if any(not queue.empty and queue not in refused for queue in queues):
                faults.append(f"{redacted(uri)}: {counts.last_error or 'no answer'}")
            if orphan.expired:
                dropped += orphan.give_up(refused)
            else:
                kept += [_kept(uri, queue, orphan.kept_until) for queue in refused]
    finally:
        orphan.release(open_sink, known)
    damage, aside, given_up = journal.damage, orphan.aside, tuple(refusals)
    return Replayed(
        delivered, dropped, orphan.waiting, tuple(faults), tuple(kept), damage, aside, refused=given_up
    )


def _refused(uri: str, queue: RunQueue) -> str:
    points = "1 point" if queue.refusals == 1 else f"{queue.refusals:,} points"
    return f"{redacted(uri)}: does not accept {points} of run {queue.run_id} ({queue.refusal}); dropped"


def _kept(uri: str, queue: RunQueue, until: float) -> str:
    date = time.strftime("%Y-%m-%d", time.localtime(until))
    server = redacted(uri)
    return (
        f"{server} does not accept points of run {queue.run_id} ({queue.refused}); kept until {date}, "
        "in case the run is on another server"
    )


def _deliver(sender: Sender, wait_seconds: float, clock: Clock) -> None:
    """Sends until nothing waits, or the server has not answered for too long."""
    gives_up_at = clock.monotonic() + wait_seconds
    while True:
        acknowledged = sender.counts_of_replayed()
        if sender.send_next():
            sender.log_messages()
            counts = sender.counts_of_replayed()
            if (counts.delivered, counts.dropped) != (acknowledged.delivered, acknowledged.dropped):
                gives_up_at = clock.monotonic() + wait_seconds
            continue
        wait = sender.due_in()
        if clock.monotonic() + wait > gives_up_at:
            return
        Event().wait(min(max(wait, 0.0), _STEP_SECONDS))


class Recovery:
    """Takes over orphans of this machine, a few at a time, and hands their queues to the senders.

    Args:
        directory: returns the spool directory; called in the thread.
        adopt: gives a queue to the sender of a tracking URI without secrets.
        open_sink: opens the sink of a tracking server.
        known_uris: returns tracking URIs with their credentials.
    """

    def __init__(
        self,
        directory: Callable[[], Path],
        adopt: Callable[[str, RunQueue], None],
        open_sink: Callable[[str], Sink],
        known_uris: Callable[[], list[str]],
    ) -> None:
        self._directory = directory
        self._adopt = adopt
        self._open_sink = open_sink
        self._known_uris = known_uris
        self._progressed = Event()
        self._claimed: list[Orphan] = []
        self._servers: dict[Path, set[str]] = {}
        self._yielding: dict[Orphan, Path] = {}
        self._missing = MissingStores()
        self._requests_left = _MAX_REQUESTS

    def run(self) -> None:
        """Takes over orphans until there are none. Runs in a separate thread.

        Raises:
            MemoryError: there was not enough memory; another try may have it.
        """
        try:
            self._take_over_all()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            # Anything may be wrong on the user's machine; points not taken over stay where they are.
            _logger.info("mlflow-sysmetrics: Points of processes that died stay on disk: %s.", why(error))

    def forget_after_fork(self) -> None:
        """Closes the descriptors in a forked child; the orphans belong to the parent."""
        for orphan in self._claimed:
            orphan.journal.forget_after_fork()

    def _take_over_all(self) -> None:
        directory = self._directory()
        delete_expired(directory)
        waiting = journals(directory)
        # Many processes may start at once. SystemRandom, since a training may have seeded the module's
        # generator.
        random.SystemRandom().shuffle(waiting)
        while waiting or self._claimed:
            waiting = [path for path in waiting if not self._take(path)]
            waiting += self._release_done()
            if self._claimed:
                self._free_slots(len(waiting))
                self._progressed.wait()
                self._progressed.clear()
                waiting += self._release_done()

    def _take(self, path: Path) -> bool:
        """Takes over an orphan; returns whether the path is dealt with."""
        if self._is_busy(self._servers.get(path, set())):
            return False
        journal = claim(path)
        if journal is None:
            return True
        orphan = Orphan(journal, lambda _: self._progressed.set())
        queues = orphan.by_server()
        if self._is_busy(queues.keys()):
            self._servers[path] = set(queues)
            journal.close(delete=False)
            return False
        self._claimed.append(orphan)
        for uri, of_server in queues.items():
            missing = self._missing.reason(uri)
            for queue in of_server:
                if missing is not None:  # neither a sender nor another orphan needs to wait for it
                    queue.put_aside(missing)
                    continue
                # Points are never given up untried: the machine may have been off for the month.
                if orphan.expired:
                    queue.limit_to_one_try()
                self._adopt(uri, queue)
        return True

    def _is_busy(self, servers: Iterable[str]) -> bool:
        counts = [sum(one in orphan.servers for orphan in self._claimed) for one in servers]
        return len(self._claimed) >= _MAX_CLAIMED or max(counts, default=0) >= _MAX_PER_SERVER

    def _free_slots(self, waiting: int) -> None:
        """Makes failing orphans give their slots to waiting ones; they are tried again after those."""
        if len(self._claimed) < _MAX_CLAIMED:
            return
        failing = [orphan for orphan in self._claimed if orphan.failing and orphan not in self._yielding]
        for orphan in failing[: max(waiting - len(self._yielding), 0)]:
            self._yielding[orphan] = orphan.journal.path
            orphan.yield_slot()

    def _release_done(self) -> list[Path]:
        """Releases finished orphans; returns the paths of those to be tried again after all others."""
        later = []
        done = [orphan for orphan in self._claimed if orphan.done]
        for orphan in done:
            if orphan.expired:
                orphan.give_up(orphan.set_aside)
            self._requests_left -= orphan.release(self._open_sink, self._known_uris(), self._requests_left)
            self._claimed.remove(orphan)
            path = self._yielding.pop(orphan, None)
            if path is not None:
                later.append(path)
        return later
