"""Every metric, described once, as data: one module per group.

Names and units are MLflow's own if MLflow has the metric, so that dashboards keep working when its built-in
monitor is replaced. `docs/reference/metrics.md` is generated from these descriptions.
"""

from __future__ import annotations
