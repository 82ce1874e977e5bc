"""A training with all features: handwritten digits, on a CPU, in a few seconds."""

from __future__ import annotations

import sys

import mlflow
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from mlflow_sysmetrics.training.trainer import Trainer, run_to_resume

EPOCHS = 8
GROUP = 2  # batches per optimizer step


def loaders() -> tuple[DataLoader, DataLoader]:
    """Returns loaders of 1,500 digits for training and 297 for validation."""
    digits = load_digits()
    pixels = torch.tensor(digits.data, dtype=torch.float32) / 16
    numbers = torch.tensor(digits.target)
    train = TensorDataset(pixels[:1500], numbers[:1500])
    val = TensorDataset(pixels[1500:], numbers[1500:])
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=128)


def main(save_dir: str) -> None:
    """Trains, or resumes a training that was killed."""
    torch.manual_seed(0)
    train_loader, val_loader = loaders()
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(128, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = EPOCHS * -(-len(train_loader) // GROUP)
    trainer = Trainer(
        model,
        train_loader,
        val_loader,
        optimizer,
        torch.nn.CrossEntropyLoss(),
        "cuda" if torch.cuda.is_available() else "cpu",
        num_epochs=EPOCHS,
        patience=3,
        gradient_clip=1.0,
        gradient_accumulation_steps=GROUP,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps),
        save_dir=save_dir,
        use_amp=True,
        amp_dtype="bfloat16",
        logging_steps=20,
        log_system_metrics=True,
        system_metrics_interval=10,
    )
    mlflow.set_experiment("digits")
    # A restarted job resumes its own run; the first time there is none to resume.
    with mlflow.start_run(run_id=run_to_resume(save_dir)) as run:
        summary = trainer.train()
    print(f"run {run.info.run_id}")
    for name, value in summary.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main(sys.argv[1])
