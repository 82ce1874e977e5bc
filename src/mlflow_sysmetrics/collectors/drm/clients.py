"""What the own processes do with the GPUs: their memory and their engine time, as the drivers account it.

A descriptor of a GPU is one whose link in /proc/<pid>/fd leads to /dev/dri; only that one's fdinfo is read,
for which the driver walks the client's buffers. The processes are gone through a few at each tick.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlflow_sysmetrics.collectors.drm.fdinfo import DrmClient, parse_fdinfo
from mlflow_sysmetrics.collectors.processes.ration import Ration
from mlflow_sysmetrics.collectors.processes.tree import ProcessTree
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, read_bytes

_DRI = "/dev/dri/"
_ROUND_SECONDS = 5.0  # half of what a point stands for by default
_SECONDS_PER_TICK = 200e-6  # a process with 150 files takes as long
_REST = 1000.0  # at most 0.1 % of a core, whatever a driver needs for its answer


class ClientKey(NamedTuple):
    """Tells clients apart: a number is given once per device, and a driver may not tell the device."""

    device: str
    identity: int


class Use(NamedTuple):
    """A client, and the node in /dev/dri by which the process has opened it."""

    node: str
    client: DrmClient


class DrmClients:
    """Reads the clients that this process and its descendants have.

    Args:
        host: the machine to look at.

    Raises:
        Unavailable: the own process cannot be read.
    """

    def __init__(self, host: Host) -> None:
        try:
            self._tree = ProcessTree(host)
        except (OSError, ValueError) as error:
            raise Unavailable(f"the own processes cannot be read: {error}") from error
        self._pause = Pause(_ROUND_SECONDS, read=False)
        self._ration = Ration(_REST)
        self._left: list[str] = []
        self._found: dict[ClientKey, Use] = {}

    def read(self, now: float) -> Mapping[ClientKey, Use] | None:
        """Looks at some more processes if it is time to.

        Args:
            now: seconds of a clock that never goes back.

        Returns:
            All clients at the tick at which a round ends; None at the others.
        """
        if not self._ration.over(now) or (not self._left and not self._pause.renew_if_over(now)):
            return None
        self._ration.begin(now)
        began = time.thread_time()
        if not self._left:
            self._begin(now)
        spent = 0.0
        while self._left and spent < _SECONDS_PER_TICK:
            for use in _uses(self._left.pop()):
                client = use.client
                self._found.setdefault(ClientKey(client.slot or use.node, client.identity), use)
            spent = time.thread_time() - began
        self._ration.charge(time.thread_time() - began)
        return None if self._left else self._found

    def _begin(self, now: float) -> None:
        self._found = {}
        with contextlib.suppress(OSError, ValueError):  # those that are known go on
            self._tree.look(now)
        self._left = [member.directory for member in reversed(self._tree.members())]


def _uses(directory: str) -> Iterator[Use]:
    """Yields the clients of one process; none where it has ended, or is somebody else's."""
    try:
        descriptors = os.listdir(f"{directory}/fd")  # noqa: PTH208 - no open iterator
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{directory}/fd/{descriptor}")  # noqa: PTH115 - a third of Path's cost
            client = (
                parse_fdinfo(read_bytes(f"{directory}/fdinfo/{descriptor}"))
                if target.startswith(_DRI)
                else None
            )
        except OSError:  # closed meanwhile
            continue
        if client is not None:
            yield Use(target.removeprefix(_DRI), client)
