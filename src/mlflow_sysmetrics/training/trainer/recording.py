"""Records a training on its run: each step, epoch and summary once, even across resumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mlflow_sysmetrics.training.recorder import MetricRecorder
from mlflow_sysmetrics.training.system_metrics import SystemMetricsLogger
from mlflow_sysmetrics.training.trainer.resume import Extent, Recorded


class Recording:
    """Records steps, epochs and the summary of a training, unless the run has them already.

    Args:
        extent: the run, and how far the training is recorded on it.
        directory: where to keep note of that; None if the training cannot be resumed.
        logging_steps: see `MetricRecorder`.
        system_metrics_interval: steps between two logs of hardware metrics; None logs none.
        device: device of the training.

    Attributes:
        run_id: the run.
    """

    def __init__(
        self,
        extent: Extent,
        directory: Path | None,
        *,
        logging_steps: int,
        system_metrics_interval: int | None,
        device: torch.device,
    ) -> None:
        self.run_id = extent.run_id
        self._before = extent
        self._recorded = Recorded(directory, extent)
        self._recorder = MetricRecorder(extent.run_id, logging_steps=logging_steps)
        self._logging_steps = logging_steps
        self._interval = system_metrics_interval
        self._machine = None if system_metrics_interval is None else _machine(extent.run_id, device)

    def step(self, step: int, values: Callable[[], Mapping[str, object]]) -> bool:
        """Records a step and hardware metrics, if they are due; returns whether the step was recorded.

        Args:
            step: number of the step, from 1.
            values: returns the values by name; called only if the step is recorded.
        """
        if step <= self._before.step:
            return False
        # Not recorder.wants(): the first step of a resumed training is not special.
        wanted = step == 1 or step % self._logging_steps == 0
        reads_machine = self._interval is not None and step % self._interval == 0
        if wanted or reads_machine:
            self._recorded.note(step=step)
        if wanted:
            self._recorder.step(step, values())
        if reads_machine and self._machine is not None:
            self._machine.log_metrics(step=step)
        return wanted

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records an epoch, unless the run has it already."""
        if epoch > self._before.epoch:
            self._recorder.epoch(epoch, metrics)
            self._recorded.note(epoch=epoch)

    def final(self, step: int, metrics: Mapping[str, object]) -> None:
        """Records the summary at the last step, unless the run has it already."""
        if step > self._before.final:
            self._recorder.step(step)  # without values: places the summary at this step
            self._recorder.final(metrics)
            self._recorded.note(final=step)

    def close(self) -> None:
        """Flushes, waits for delivery up to the flush timeout, and releases everything."""
        self._recorder.close()
        if self._machine is not None:
            self._machine.close()
        self._recorded.close()


def _machine(run_id: str, device: torch.device) -> SystemMetricsLogger:
    if device.type != "cuda":
        return SystemMetricsLogger(log_gpu=False, run_id=run_id)
    index = torch.cuda.current_device() if device.index is None else device.index
    return SystemMetricsLogger(gpu_device=index, run_id=run_id)
