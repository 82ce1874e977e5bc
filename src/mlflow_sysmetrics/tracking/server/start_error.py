"""What is raised where a tracking server does not come up."""

from __future__ import annotations

from mlflow_sysmetrics.errors import SysMetricsError


class ServerStartError(SysMetricsError, RuntimeError):
    """A tracking server did not come up; says why, what to do, and how its log ends.

    Attributes:
        log_tail: the last lines of its log, without passwords; empty where it never started.
    """

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(f"{reason}\n\nIts log ends with:\n{log_tail}" if log_tail else reason)
        self.reason = reason
        self.log_tail = log_tail

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps both arguments when it is pickled, as pools of workers do with errors."""
        return type(self), (self.reason, self.log_tail)
