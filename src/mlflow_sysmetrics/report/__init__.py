"""What a run or an experiment did: read from the tracking server, as a table, a page or a file."""

from __future__ import annotations
