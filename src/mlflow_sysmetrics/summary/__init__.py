"""What the samples of a run amount to: statistics, a summary, and verdicts by published rules.

Nothing here reads a machine, a server or a clock, so the sampler can use it while a run lasts, and a report
afterwards.
"""

from __future__ import annotations
