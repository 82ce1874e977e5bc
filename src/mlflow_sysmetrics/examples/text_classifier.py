"""The example: a classifier of sentences, trained once or searched for, with everything on its runs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import mlflow
import torch
from torch import nn

from mlflow_sysmetrics.examples.sentences import TOPICS, Sentence, sentences
from mlflow_sysmetrics.training import OptunaRunner, Trainer, save_model_to_mlflow

_BUCKETS = 4096  # of hashed words; 0 is padding
_LONGEST = 24  # words of a sentence
SEARCH_SPACE = {
    "learning_rate": {"type": "loguniform", "low": 1e-3, "high": 3e-1},
    "batch_size": {"type": "categorical", "choices": [16, 32, 64]},
    "hidden_size": {"type": "int", "low": 8, "high": 64, "log": True},
}


class BagOfWords(nn.Module):  # type: ignore[misc] # torch need not be installed where types are checked
    """Averages the embeddings of the words of a sentence, and classifies the mean.

    Args:
        hidden_size: size of the embeddings.
        dropout: share of the mean that is dropped in training.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(_BUCKETS, hidden_size, mode="mean", padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, len(TOPICS))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns the logits of a batch of word numbers."""
        logits: torch.Tensor = self.head(self.dropout(self.embeddings(input_ids)))
        return logits


def word_numbers(text: str) -> list[int]:
    """Returns the numbers of the words of a sentence, padded with 0."""
    words = re.findall(r"[a-z']+", text.lower())[:_LONGEST]
    numbers = [1 + zlib.crc32(word.encode()) % (_BUCKETS - 1) for word in words]
    return numbers + [0] * (_LONGEST - len(numbers))


def train(config: Mapping[str, Any]) -> dict[str, Any]:
    """Trains on the active run and logs the model to it; returns the summary of the training."""
    torch.manual_seed(config["seed"])
    training, model = config["training"], config["model"]
    network = BagOfWords(model["hidden_size"], model["dropout"])
    rate = training["optimizer"]["lr"]
    trainer = Trainer(
        network,
        _loader(sentences(held_out=False), training["batch_size"], seed=config["seed"]),
        _loader(sentences(held_out=True), 96),
        torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=training["optimizer"]["weight_decay"]),
        nn.CrossEntropyLoss(),
        "cuda" if torch.cuda.is_available() else "cpu",
        num_epochs=training["num_epochs"],
        logging_steps=1,
        log_system_metrics=True,
        system_metrics_interval=2,
        progress=False,
        config=config,
    )
    summary = trainer.train()
    sample = torch.tensor([word_numbers("I could not sleep.")])
    save_model_to_mlflow(network, sample_input=sample, pip_requirements=["mlflow", "torch", "numpy"])
    return summary


def search(task: str, stage: str, size: tuple[int, int], config: Mapping[str, Any]) -> Any:
    """Searches hyperparameters in nested runs; returns the result of the study.

    Args:
        task: names the study and its experiment.
        stage: names the study.
        size: number of trials, and of their epochs.
        config: the configuration.
    """
    n_trials, num_epochs = size

    def objective(trial: Any, params: Mapping[str, Any]) -> float:
        torch.manual_seed(config["seed"])
        network = BagOfWords(params["hidden_size"], config["model"]["dropout"])
        trainer = Trainer(
            network,
            _loader(sentences(held_out=False), params["batch_size"], seed=trial.number),
            _loader(sentences(held_out=True), 96),
            torch.optim.AdamW(network.parameters(), lr=params["learning_rate"]),
            nn.CrossEntropyLoss(),
            "cuda" if torch.cuda.is_available() else "cpu",
            num_epochs=num_epochs,
            logging_steps=1,
            log_system_metrics=True,
            system_metrics_interval=2,
            progress=False,
        )
        return float(trainer.train(trial)["best_val_f1_macro"])

    runner = OptunaRunner(f"{task}_{stage}", "maximize", "val_f1_macro", seed=config["seed"])
    experiment = mlflow.set_experiment(f"hpo_{task}").name
    return runner.optimize(
        objective, n_trials, SEARCH_SPACE, mlflow_experiment_name=experiment, progress=False
    )


def _loader(rows: list[Sentence], batch_size: int, *, seed: int | None = None) -> Any:
    inputs = torch.tensor([word_numbers(row.text) for row in rows])
    labels = torch.tensor([row.topic for row in rows])
    shuffled = None if seed is None else torch.Generator().manual_seed(seed)
    data = torch.utils.data.TensorDataset(inputs, labels)
    return torch.utils.data.DataLoader(data, batch_size, shuffle=seed is not None, generator=shuffled)
