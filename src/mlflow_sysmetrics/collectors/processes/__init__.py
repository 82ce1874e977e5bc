"""The training process and all its descendants: what they use, and what they hold.

`tree` (Linux) and `psutil_tree` follow them, `ledger` counts their CPU time, `tree_samples` makes the
samples.
"""

from __future__ import annotations
