"""The process that is being trained and all its descendants: who they are, what they use, what they hold.

`tree` (Linux) and `psutil_tree` follow them, `ledger` counts their CPU time, `samples` makes series of it.
"""

from __future__ import annotations
