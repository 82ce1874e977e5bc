"""Journals of dead processes. On the path of pytest (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def of_a_process_that_is_gone(journal: Path) -> Path:
    """Replaces the writer of a closed journal, this process, by one that has exited."""
    from mlflow_sysmetrics.daemon.journal.lines import Header, dump, parse

    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    header = parse(first)
    assert isinstance(header, Header)
    assert header.pid == os.getpid()
    journal.write_bytes(b"".join([dump(header._replace(pid=ended.pid)), *rest]))
    return journal
