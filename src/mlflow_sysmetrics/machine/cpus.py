"""Sets of CPUs as the kernel writes them."""

from __future__ import annotations

import re

_MOST_CPUS = 65_536  # the largest kernel is built for 8192; a longer list is no list


def parse_cpu_list(text: str) -> frozenset[int]:
    """Returns the CPUs of a kernel list such as "0-3,8".

    Raises:
        ValueError: the text is no such list.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        end = int(last or first)
        if end >= _MOST_CPUS:
            raise ValueError(f"{text[:40]!r} is no list of CPUs")
        cpus.update(range(int(first), end + 1))
    return frozenset(cpus)


def parse_online_cpus(text: str) -> frozenset[int]:
    """Returns the CPUs that have a line of their own in /proc/stat."""
    return frozenset(int(cpu) for cpu in re.findall(r"^cpu(\d+) ", text, re.MULTILINE))


def parse_affinity(text: str) -> frozenset[int] | None:
    """Returns the CPUs of Cpus_allowed_list in /proc/<pid>/status; None where it has none."""
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", text, re.MULTILINE)
    try:
        return parse_cpu_list(allowed[1]) if allowed else None
    except ValueError:
        return None
