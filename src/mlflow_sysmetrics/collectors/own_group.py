"""Notices when the job is moved to another cgroup: what is read would be another job's from then on."""

from __future__ import annotations

from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, read_bytes

_LOOK_SECONDS = 5.0  # one read of 3 us


class OwnGroup:
    """Remembers which groups the job is in.

    Args:
        host: the machine to read.
    """

    def __init__(self, host: Host) -> None:
        self._path = str(host.root / "proc/self/cgroup")
        self._pause = Pause(_LOOK_SECONDS)
        self._groups = self._read()

    def check(self, now: float) -> None:
        """Looks from time to time whether they are still the same.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            Unavailable: they are not; a new collector finds where the job is now.
        """
        if self._pause.renew_if_over(now) and self._read() != self._groups:
            raise Unavailable("the job has moved to another cgroup")

    def _read(self) -> bytes:
        try:
            return read_bytes(self._path)
        except OSError:
            return b""
