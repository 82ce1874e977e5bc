"""Searches a small network for handwritten digits: 30 trials, some pruned, some failing on purpose."""

import sys

import mlflow
import optuna
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from mlflow_sysmetrics import OptunaRunner

EPOCHS = 6
SEARCH_SPACE = {
    "width": {"type": "int", "low": 8, "high": 128, "log": True},
    "learning_rate": {"type": "loguniform", "low": 1e-4, "high": 30.0},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class DivergedError(Exception):
    """The network is worse than guessing."""


def digits() -> tuple:
    """Returns images and labels for training and for validation."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels)
    train_x, val_x, train_y, val_y = parts
    return (
        torch.tensor(train_x, dtype=torch.float32),
        torch.tensor(train_y),
        torch.tensor(val_x, dtype=torch.float32),
        val_y,
    )


DIGITS = digits()
torch.set_num_threads(1)  # more threads are slower for such a small network


def objective(trial: optuna.Trial, params: dict) -> float:
    """Trains a network in the run of the trial and returns its score."""
    torch.manual_seed(trial.number)
    train_x, train_y, val_x, val_y = DIGITS
    model = torch.nn.Sequential(
        torch.nn.Linear(64, params["width"]),
        torch.nn.ReLU(),
        torch.nn.Dropout(params["dropout"]),
        torch.nn.Linear(params["width"], 10),
    )
    optimizer = OPTIMIZERS[params["optimizer"]](model.parameters(), lr=params["learning_rate"])
    score = 0.0
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for some in torch.randperm(len(train_x)).split(64):
            loss = torch.nn.functional.cross_entropy(model(train_x[some]), train_y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if loss.item() > 3:  # guessing has a loss of 2.3
            raise DivergedError(f"loss {loss.item():.1f} in epoch {epoch}")
        model.eval()
        with torch.no_grad():
            score = float(f1_score(val_y, model(val_x).argmax(1).numpy(), average="macro"))
        mlflow.log_metrics({"epoch/train_loss": loss.item(), "epoch/val_f1_macro": score}, step=epoch)
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned(f"f1 {score:.2f} after epoch {epoch}")
    return score


def main(tracking_uri: str, storage: str) -> None:
    """Runs the study, or the rest of it."""
    runner = OptunaRunner(
        "digits",
        direction="maximize",
        metric="val_f1_macro",
        storage=storage,
        pruner="median",
        pruner_config={"n_startup_trials": 5, "n_warmup_steps": 2},
        seed=7,
    )
    result = runner.optimize(
        objective,
        n_trials=30,
        search_space=SEARCH_SPACE,
        mlflow_tracking_uri=tracking_uri,
        mlflow_experiment_name="hpo_digits",
        catch=DivergedError,
    )
    print(
        f"{result.total_trials} trials: {result.completed_trials} completed, {result.pruned_trials} pruned, "
        f"{result.failed_trials} failed"
    )
    print(f"best: trial {result.best_trial_number} with {result.best_value:.3f}, {result.best_params}")
    print(f"run of the study: {result.parent_run_id}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["sqlite:///mlflow.db", "sqlite:///study.db"]))
