"""The start of the programs that tests run: `data`, `network` and `trainer(**arguments)`."""

from __future__ import annotations

NEEDED = ("torch", "mlflow_sysmetrics.training.trainer.engines")

TRAINING = """
import mlflow, torch
from mlflow_sysmetrics.training.trainer import Trainer, run_to_resume

torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(96, 8)
y = (x[:, :3].sum(dim=1) > 0).long() + (x[:, 0] > 1).long()
data = torch.utils.data.TensorDataset(x, y)
train = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
val = torch.utils.data.DataLoader(data, batch_size=20)
network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

def trainer(**arguments):
    given = dict(model=network, train_loader=train, val_loader=val, criterion=torch.nn.CrossEntropyLoss(),
                 optimizer=torch.optim.Adam(network.parameters(), 0.01), device="cpu", num_epochs=3,
                 logging_steps=5)
    return Trainer(**{**given, **arguments})
"""
