"""What a training says of itself, to its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mlflow_sysmetrics.training.recorder import MetricRecorder
from mlflow_sysmetrics.training.system_metrics import SystemMetricsLogger
from mlflow_sysmetrics.training.trainer.resume import Extent, Recorded


class Recording:
    """Records steps, epochs and the summary of a training, each once, also over resumes.

    Args:
        extent: the run, and what it has already.
        directory: where to note what it has; None where the training cannot be resumed.
        logging_steps: as of `MetricRecorder`.
        system_metrics_interval: steps between two looks at the machine; None does not look.
        device: of the training.

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
        """Records a step, and what the machine does, if it is their turn; returns whether the step is.

        Args:
            step: of the training, from 1.
            values: returns them by name; is called only if they are wanted.
        """
        if step <= self._before.step:
            return False
        # Not what the recorder wants: its first step is not that of a training that goes on.
        wanted = step == 1 or step % self._logging_steps == 0
        looks = self._interval is not None and step % self._interval == 0
        if wanted or looks:
            self._recorded.note(step=step)
        if wanted:
            self._recorder.step(step, values())
        if looks and self._machine is not None:
            self._machine.log_metrics(step=step)
        return wanted

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records an epoch, if it has not been."""
        if epoch > self._before.epoch:
            self._recorder.epoch(epoch, metrics)
            self._recorded.note(epoch=epoch)

    def final(self, step: int, metrics: Mapping[str, object]) -> None:
        """Records the summary at the last step, if it has not been."""
        if step > self._before.final:
            self._recorder.step(step)  # which has nothing to say but where the training is
            self._recorder.final(metrics)
            self._recorded.note(final=step)

    def close(self) -> None:
        """Hands everything over, waits for its delivery as long as the flush timeout says, and lets go."""
        self._recorder.close()
        if self._machine is not None:
            self._machine.close()
        self._recorded.close()


def _machine(run_id: str, device: torch.device) -> SystemMetricsLogger:
    if device.type != "cuda":
        return SystemMetricsLogger(log_gpu=False, run_id=run_id)
    index = torch.cuda.current_device() if device.index is None else device.index
    return SystemMetricsLogger(gpu_device=index, run_id=run_id)
