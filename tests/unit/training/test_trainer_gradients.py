"""Gradients: scaled losses, as in float16, groups of batches, and steps that the scaler skips."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ignite", reason="pytorch-ignite is not installed")

from mlflow_sysmetrics.training.trainer.loop import Gradients, LearningRate

pytestmark = pytest.mark.heavy

CPU = torch.device("cpu")


def parts(*, scaled: bool, **asked: Any) -> tuple[Any, Any, Gradients]:
    """Returns a model with one weight, its optimizer with a scheduler, and its gradients."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    rate = LearningRate(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1), "step")
    given = {"group": 1, "clip": None, "device": CPU, "precision": None, **asked}
    gradients = Gradients(model, optimizer, rate, **given)
    if scaled:  # as on a GPU; on a CPU, a scaler is of use to this test only
        gradients._scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return model, optimizer, gradients


def loss(model: Any, value: float) -> Any:
    return model(torch.tensor([[value]])).sum()


@pytest.mark.parametrize("asked", [{}, {"clip": 0.25}, {"group": 3}, {"group": 3, "clip": 0.25}])
def test_scaling_does_not_change_the_result(asked: dict[str, Any]) -> None:
    """Clipping, and the mean of a group that is cut short, come after unscaling."""
    weights = []
    for scaled in (False, True):
        model, _, gradients = parts(scaled=scaled, **asked)
        for value in (0.5, 1.0, 0.25, 0.75):
            gradients.add(loss(model, value))
        gradients.finish_epoch()
        weights.append(model.weight.item())
    assert weights[1] == pytest.approx(weights[0], abs=1e-6)
    assert weights[0] != 1


def test_a_step_with_infinite_gradients_is_skipped_by_the_scheduler_too() -> None:
    model, optimizer, gradients = parts(scaled=True)
    gradients.add(loss(model, float("inf")))
    assert model.weight.item() == 1
    assert optimizer.param_groups[0]["lr"] == 0.5
    gradients.add(loss(model, 1.0))
    assert model.weight.item() == 0.5
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_scaler_is_restored_from_a_checkpoint() -> None:
    _, _, gradients = parts(scaled=True)
    model, _, before = parts(scaled=True)
    before.add(loss(model, float("inf")))
    gradients.load_state_dict(before.state_dict())
    assert gradients._scaler.get_scale() == 512


def test_a_group_that_is_cut_short_is_the_mean_of_its_batches() -> None:
    model, _, gradients = parts(scaled=False, group=4)
    for value in (1.0, 2.0):
        gradients.add(loss(model, value))
    assert model.weight.item() == 1
    gradients.finish_epoch()
    assert model.weight.item() == pytest.approx(1 - 0.5 * 1.5)
    gradients.finish_epoch()  # nothing is left
    assert model.weight.item() == pytest.approx(1 - 0.5 * 1.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU")
def test_no_step_waits_for_the_gpu() -> None:
    engines = pytest.importorskip("mlflow_sysmetrics.training.trainer.engines")
    from mlflow_sysmetrics.training.trainer import Trainer

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    batches = [(torch.randn(4, 8), torch.randint(3, (4,))) for _ in range(70)]
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    trainer = Trainer(
        model,
        batches,
        batches,
        optimizer,
        torch.nn.CrossEntropyLoss(),
        "cuda",
        gradient_accumulation_steps=3,
        gradient_clip=1.0,
        use_amp=True,
        amp_dtype="bfloat16",
    )
    on = trainer.engine.add_event_handler
    on(engines.Events.ITERATION_STARTED, lambda: torch.cuda.set_sync_debug_mode("error"))
    on(engines.Events.ITERATION_COMPLETED, lambda: torch.cuda.set_sync_debug_mode("default"))
    try:
        trainer._loop.run(epoch=0, step=0, num_epochs=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.engine.state.metrics["val_loss"] > 0
