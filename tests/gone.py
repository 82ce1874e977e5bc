"""Journals of processes that are gone. Put on the path by pytest (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def of_a_process_that_is_gone(journal: Path) -> Path:
    """Has a journal that this process has closed name another one, which has ended, as its writer."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    text = journal.read_bytes()
    ours, theirs = (f'"pid":{pid}'.encode() for pid in (os.getpid(), ended.pid))
    assert ours in text
    journal.write_bytes(text.replace(ours, theirs, 1))
    return journal
