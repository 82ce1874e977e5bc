"""A training loop that records, checkpoints, stops early and resumes; its modules need the extra `train`.

`trainer.py` is the door, and imports without torch; every other module imports torch where it begins.
"""

from __future__ import annotations

from mlflow_sysmetrics.training.trainer.resume import run_to_resume
from mlflow_sysmetrics.training.trainer.trainer import Trainer

__all__ = ["Trainer", "run_to_resume"]
