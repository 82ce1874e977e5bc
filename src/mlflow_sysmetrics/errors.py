"""The exception tree.

::

    SysMetricsError
    |-- SettingsError (ValueError)   a setting given in code is out of range
    |-- Unavailable                  this machine does not have that source or fact
    |-- JournalUnavailable           points cannot be kept on disk: they wait in memory only
    `-- DeliveryError                the tracking server did not take what was sent
        |-- ServerUnreachable        it may do so later: keep the points, try again
        |   `-- NotAllowed           it will once the credentials are right: say so, try again slowly
        |-- BatchTooLarge            it would take fewer points at a time
        `-- RunRefused               it never will for this run: set its points aside
            `-- RunDeleted           it has the run, which was deleted: no other store answers so
"""

from __future__ import annotations


class SysMetricsError(Exception):
    """Is the base of everything that this package raises."""


class SettingsError(SysMetricsError, ValueError):
    """Says which setting is out of range, what was given, and what is allowed."""


class Unavailable(SysMetricsError):  # noqa: N818 - an absence, not a fault: "no GPU here" is an answer
    """Says why a source or a fact does not exist on this machine, in one short clause."""


class DeliveryError(SysMetricsError):
    """Is the base of what a sink raises."""


class ServerUnreachable(DeliveryError):  # noqa: N818 - named after the state that the sender waits out
    """The server did not answer, or answered that it may do better later.

    Attributes:
        retry_after: seconds after which the server asked to be tried again; None where it said nothing.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class NotAllowed(ServerUnreachable):
    """The server refused the credentials, which are read anew at each attempt."""


class BatchTooLarge(DeliveryError):  # noqa: N818 - as above
    """The server takes fewer points, or fewer bytes, in one request."""


class RunRefused(DeliveryError):  # noqa: N818 - named after what the server did
    """The server will never take points for this run: it was deleted, or it never existed there."""


class RunDeleted(RunRefused):
    """The server has the run, and the run or its experiment was deleted."""


class JournalUnavailable(SysMetricsError):  # noqa: N818 - a state of the disk, in which memory serves
    """Says why points cannot be journalled, in one short clause: no directory, no permission, no lock."""
