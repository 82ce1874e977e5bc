"""The exception tree.

::

    SysMetricsError
    |-- SettingsError (ValueError)   a setting given in code is out of range
    |-- Unavailable                  this machine does not have that source or fact
    `-- DeliveryError                the tracking server did not take what was sent
        |-- ServerUnreachable        it may do so later: keep the points, try again
        `-- RunRefused               it never will for this run: set its points aside
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
    """The server did not answer, or answered that it may do better later."""


class RunRefused(DeliveryError):  # noqa: N818 - named after what the server did
    """The server will never take points for this run: it was deleted, or it never existed there."""
