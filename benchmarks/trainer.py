"""What the Trainer costs a training step, compared with a loop written by hand with the same seed.

    python benchmarks/trainer.py [ROUNDS]

The depth of a network is chosen so that its step takes 5 ms on one core. It is trained alternately, in one
process: by hand; by hand with typical `mlflow.log_metrics` calls; by the Trainer with minimal logging; by the
Trainer with all logging. The order changes from round to round. A step lasts from one request for a batch to
the next, measured in wall time and in CPU time of the training thread. The CPU time is less affected by a
busy machine, but does not show delays caused by our other threads. The store is a SQLite database.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import torch
from tables import NOISE, Cell, Table, figure, machine

from mlflow_sysmetrics.training.trainer import Trainer

_STEP_SECONDS = 0.005
_STEPS = 200  # per turn
_WARM_UP = 20  # steps per turn to ignore: the first ones of a process, a network, a database connection
_LOGGING_STEPS = 10
_NEVER = 10**9
_ROUNDS = 10
_WIDTH, _CLASSES, _SAMPLES = 256, 4, 64
_PERCENT, _MILLISECONDS = 100.0, 1e3

Batch = tuple[torch.Tensor, torch.Tensor]


class Seconds(NamedTuple):
    """Durations of the steps of a turn.

    Attributes:
        clock: wall time.
        thread: CPU time of the training thread.
    """

    clock: list[float]
    thread: list[float]


class TimedBatches:
    """Yields the same batches each time, and records the time of each request."""

    def __init__(self, steps: int) -> None:
        torch.manual_seed(0)
        self._asked: list[tuple[float, float]] = []
        self._batches = [
            (torch.randn(_SAMPLES, _WIDTH), torch.randint(_CLASSES, (_SAMPLES,))) for _ in range(steps)
        ]

    def __iter__(self) -> Iterator[Batch]:
        self._asked = []
        for batch in self._batches:
            self._asked.append((time.perf_counter(), time.thread_time()))
            yield batch

    def seconds(self) -> Seconds:
        """Returns the duration of each step, except the first ones."""
        steps = list(zip(self._asked, self._asked[1:], strict=False))[_WARM_UP:]
        return Seconds(
            [end[0] - begin[0] for begin, end in steps], [end[1] - begin[1] for begin, end in steps]
        )


def _parts(layers: int) -> tuple[torch.nn.Module, torch.optim.Optimizer, torch.nn.Module]:
    torch.manual_seed(0)
    hidden = [one for _ in range(layers) for one in (torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU())]
    model = torch.nn.Sequential(*hidden, torch.nn.Linear(_WIDTH, _CLASSES))
    return model, torch.optim.SGD(model.parameters(), 0.01), torch.nn.CrossEntropyLoss()


def by_hand(batches: TimedBatches, layers: int, *, logs: bool) -> None:
    """Trains an epoch with a minimal loop, which calls MLflow if it logs."""
    model, optimizer, criterion = _parts(layers)
    model.train()
    began = time.perf_counter()
    for step, (x, y) in enumerate(batches, start=1):
        optimizer.zero_grad()
        logits = model(x)
        loss = criterion(logits, y)
        loss.backward()
        optimizer.step()
        if logs and step % _LOGGING_STEPS == 0:
            right = (logits.argmax(dim=1) == y).float().mean().item()
            metrics = {
                "train/loss_step": loss.item(),
                "train/accuracy_step": right,
                "train/learning_rate": optimizer.param_groups[0]["lr"],
                "train/batch_time_seconds": (time.perf_counter() - began) / step,
            }
            mlflow.log_metrics(metrics, step=step)


def by_trainer(batches: TimedBatches, layers: int, *, logs: bool) -> None:
    """Trains an epoch with the Trainer; the first step is always recorded."""
    model, optimizer, criterion = _parts(layers)
    Trainer(
        model,
        batches,
        None,
        optimizer,
        criterion,
        "cpu",
        num_epochs=1,
        logging_steps=_LOGGING_STEPS if logs else _NEVER,
        log_system_metrics=logs,
        system_metrics_interval=_LOGGING_STEPS,
        progress=False,
    ).train()


TURNS: dict[str, Callable[[TimedBatches, int], None]] = {
    "by hand": lambda batches, layers: by_hand(batches, layers, logs=False),
    "by hand, mlflow.log_metrics": lambda batches, layers: by_hand(batches, layers, logs=True),
    "Trainer, logging off": lambda batches, layers: by_trainer(batches, layers, logs=False),
    "Trainer, all logging on": lambda batches, layers: by_trainer(batches, layers, logs=True),
}
# Pairs of turns: how many percent longer the first one takes.
COMPARED = (
    ("Trainer, logging off", "by hand"),
    ("Trainer, all logging on", "Trainer, logging off"),
    ("by hand, mlflow.log_metrics", "by hand"),
)


def depth() -> int:
    """Returns the number of layers for a step of 5 ms by hand."""
    batches, layers = TimedBatches(100), 8
    for _ in range(4):
        by_hand(batches, layers, logs=False)
        layers = max(1, round(layers * _STEP_SECONDS / statistics.median(batches.seconds().thread)))
    return layers


def measure(rounds: int, layers: int) -> dict[str, list[Seconds]]:
    """Returns, by turn, the seconds of the steps of each round."""
    batches = TimedBatches(_STEPS)
    found: dict[str, list[Seconds]] = {name: [] for name in TURNS}
    names = list(TURNS)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            with mlflow.start_run(log_system_metrics=False):
                TURNS[name](batches, layers)
            found[name].append(batches.seconds())
    return found


def tables(found: dict[str, list[Seconds]]) -> Iterator[Table]:
    """Yields the durations of steps, and the differences in percent."""
    rows = []
    for name, rounds in found.items():
        clock, thread = (
            Cell([one * _MILLISECONDS for seconds in rounds for one in getattr(seconds, kind)])
            for kind in Seconds._fields
        )
        rows.append((name, *map(figure, (clock.median, clock.mean, clock.p99, thread.median, thread.mean))))
    heading = ("", "median", "mean", "99 %", "median of computing", "mean of computing")
    yield Table("A training step, ms", heading, rows)
    kinds = [(kind, of) for kind in Seconds._fields for of in (statistics.median, statistics.fmean)]
    rows = [
        (f"{one} / {other}", *(_more(found[one], found[other], kind, of) for kind, of in kinds))
        for one, other in COMPARED
    ]
    heading = ("", "medians", "means", "medians of computing", "means of computing")
    yield Table("More, in %: the round in the middle, and the spread of rounds", heading, rows)


def _more(mine: list[Seconds], theirs: list[Seconds], kind: str, of: Callable[[list[float]], float]) -> str:
    pairs = zip(mine, theirs, strict=True)
    return Cell([_PERCENT * (of(getattr(a, kind)) / of(getattr(b, kind)) - 1) for a, b in pairs]).show()


def main() -> None:
    """Measures and prints."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    warnings.simplefilter("ignore")  # of libraries about newer versions of others
    torch.set_num_threads(1)  # two threads that wait for each other are disturbed more by other programs
    for name, value in machine().items():
        print(f"{name}: {value}")
    print(f"torch: {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{Path(folder, 'runs.db')}")
        mlflow.create_experiment("steps", artifact_location=Path(folder, "artifacts").as_uri())
        mlflow.set_experiment("steps")
        layers = depth()
        print(
            f"{rounds} rounds of {_STEPS} steps; a network of {layers} layers of {_WIDTH}; logs every "
            f"{_LOGGING_STEPS} steps\n"
        )
        for table in tables(measure(rounds, layers)):
            print(table)
    print(NOISE)


if __name__ == "__main__":
    main()
