"""Trainer: a training loop that records, checkpoints, stops early and resumes; needs the extra `train`.

`trainer`, `arguments` and `resume` import without torch, so that a missing extra is reported by name; the
other modules import torch at their top.
"""

from __future__ import annotations

from mlflow_sysmetrics.training.trainer.resume import run_to_resume
from mlflow_sysmetrics.training.trainer.trainer import Trainer

__all__ = ["Trainer", "run_to_resume"]
