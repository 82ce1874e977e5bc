"""A progress bar over all steps of a training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlflow_sysmetrics.training.extras import needed


class Progress:
    """Shows how far a training is. Ignite's own bar prints a whole line per step, and waits for the device.

    Args:
        wanted: None shows it on a terminal and in a notebook.
        epochs: how many there are.
        batches: per epoch; None where nobody knows.
        epoch: how many are done.
        step: as above.
    """

    def __init__(
        self, *, wanted: bool | None, epochs: int, batches: int | None, epoch: int, step: int
    ) -> None:
        self._epochs = epochs
        self._bar: Any = None
        if _seen() if wanted is None else wanted:
            total = None if batches is None else step + batches * (epochs - epoch)
            tqdm = needed("tqdm.auto", extra="train", by="the progress bar of Trainer").tqdm
            self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def epoch(self, epoch: int) -> None:
        """Shows which epoch begins."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}/{self._epochs}")

    def step(self) -> None:
        """Shows one step more; ten times a second at most."""
        if self._bar is not None:
            self._bar.update()

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Shows a few metrics of the last epoch."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()})

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _seen() -> bool:
    """Tells whether somebody looks: at a terminal, or at a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
