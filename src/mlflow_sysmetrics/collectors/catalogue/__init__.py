"""Every metric, described once, as data: one module per group.

Names and units are MLflow's own wherever MLflow has the metric, so that dashboards keep working where its
built-in monitor is replaced. `docs/metrics.md` is made from these descriptions.
"""

from __future__ import annotations
