"""RAPL zones of the CPU packages, and the energy between two readings of a zone.

https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlflow_sysmetrics.collectors.kernel_files import count, listed, text_of
from mlflow_sysmetrics.collectors.presence import NO_RAPL, POWERCAP
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.machine.reasons import why_unread

_TOP_ZONE = re.compile(r"intel-rapl(-mmio)?:\d+")  # intel-rapl:0:1 is a part of intel-rapl:0
_MICROJOULES = 1e6
# No package draws more: the largest server processors are built for 500 W and briefly draw less than twice
# that. A counter that seems to have grown faster was reset instead of wrapping; a counter that could have
# wrapped at this power since it was read (65 kJ on some servers: after 65 s) may have wrapped unseen.
_MOST_WATTS = 1000.0


class Zone(NamedTuple):
    """One package: the path of its counter, and the value at which it wraps; 0 if unknown."""

    path: str
    range_uj: int


def joules_between(before: int, now: int, range_uj: int, span: float) -> float | None:
    """Returns the energy between two readings of a counter; None if it cannot be determined.

    Args:
        before: the older reading, in microjoules.
        now: the newer one.
        range_uj: largest value of the counter, after which it restarts at 0; 0 if unknown.
        span: seconds between them.
    """
    most = _MOST_WATTS * span
    if range_uj and most >= range_uj / _MICROJOULES:
        return None
    grown = (now - before if now >= before else now - before + range_uj) / _MICROJOULES
    return grown if 0 <= grown <= most else None


def packages(host: Host) -> list[Zone]:
    """Returns the zones of all packages of the host, one per package.

    Raises:
        Unavailable: there is no package, or one that may not be read.
    """
    zones = sorted(filter(_TOP_ZONE.fullmatch, listed(str(host.root / POWERCAP))), key=_msr_first)
    found: dict[str, Zone] = {}
    refused: dict[str, str] = {}
    for zone in zones:
        package = text_of(str(host.root / POWERCAP / zone / "name"))
        if not package.startswith("package-") or package in found:
            continue
        path = f"{POWERCAP}/{zone}/energy_uj"
        try:
            count(read_short(str(host.root / path)))
        except PermissionError:
            refused.setdefault(
                package, f"/{path} is readable by root only: ask the administrator for read access"
            )
        except (OSError, ValueError) as error:
            refused.setdefault(package, why_unread(error, f"/{path}"))
        else:
            found[package] = Zone(str(host.root / path), _range(host, zone))
    unread = [reason for package, reason in refused.items() if package not in found]
    if unread or not found:
        raise Unavailable(unread[0] if unread else NO_RAPL)
    return list(found.values())


def _msr_first(zone: str) -> tuple[bool, str]:
    return "mmio" in zone, zone


def _range(host: Host, zone: str) -> int:
    try:
        return count(read_short(str(host.root / POWERCAP / zone / "max_energy_range_uj")))
    except (OSError, ValueError):
        return 0
