"""The Trainer's loop does the same as a hand-written loop, step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
engines = pytest.importorskip("mlflow_sysmetrics.training.trainer.engines")

from mlflow_sysmetrics.training.trainer import Trainer

pytestmark = pytest.mark.heavy

EPOCHS, BATCHES, CLASSES = 3, 7, 3
Step = Callable[[Any, Any, Any], None]


def batches() -> list[tuple[Any, Any]]:
    """Returns seven batches, the last one smaller."""
    generator = torch.Generator().manual_seed(1)
    sizes = [8] * (BATCHES - 1) + [3]
    return [
        (torch.randn(n, 5, generator=generator), torch.randint(CLASSES, (n,), generator=generator))
        for n in sizes
    ]


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, CLASSES)
    )


def new_optimizer(model: Any) -> Any:
    return torch.optim.Adam(model.parameters(), 0.02)


CRITERION = torch.nn.CrossEntropyLoss()


def trained(trainer: Trainer, epochs: int = EPOCHS) -> list[float]:
    """Trains without a run; returns the loss of each step."""
    losses: list[float] = []
    trainer.engine.add_event_handler(
        engines.Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output))
    )
    torch.manual_seed(2)
    trainer._loop.run(epoch=0, step=0, num_epochs=epochs)
    return losses


def by_hand(
    model: Any,
    *,
    group: int = 1,
    clip: float | None = None,
    after_step: Callable[[Any], None] = lambda _: None,
    after_epoch: Callable[[Any], None] = lambda _: None,
    precision: Any = None,
) -> list[float]:
    """Trains with a hand-written loop; returns the loss of each step."""
    optimizer, losses = new_optimizer(model), []
    torch.manual_seed(2)
    for _ in range(EPOCHS):
        model.train()
        every = batches()
        for first in range(0, len(every), group):
            part = every[first : first + group]
            optimizer.zero_grad()
            for x, y in part:
                with torch.autocast("cpu", precision, enabled=precision is not None):
                    loss = CRITERION(model(x), y)
                (loss / len(part)).backward()
                losses.append(loss.item())
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            after_step(optimizer)
        after_epoch(optimizer)
    return losses


@pytest.mark.parametrize(
    ("asked", "hand"),
    [
        ({}, {}),
        ({"gradient_accumulation_steps": 3}, {"group": 3}),
        ({"gradient_accumulation_steps": 4}, {"group": 4}),
        ({"gradient_accumulation_steps": 10}, {"group": 10}),  # more than an epoch has batches
        ({"gradient_clip": 0.3}, {"clip": 0.3}),
        ({"gradient_clip": 0.3, "gradient_accumulation_steps": 3}, {"clip": 0.3, "group": 3}),
        ({"use_amp": True}, {"precision": torch.bfloat16}),
        ({"use_amp": True, "amp_dtype": torch.bfloat16}, {"precision": torch.bfloat16}),
    ],
    ids=lambda one: "-".join(one) or "plain",
)
def test_losses_equal_those_of_a_hand_written_loop(asked: dict[str, Any], hand: dict[str, Any]) -> None:
    model, same = network(), network()
    trainer = Trainer(model, batches(), None, new_optimizer(model), CRITERION, "cpu", **asked)
    losses = trained(trainer)
    assert losses == pytest.approx(by_hand(same, **hand), abs=1e-6)
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_scheduler_advances_per_optimizer_step_or_per_epoch(interval: str, group: int) -> None:
    model, same = network(), network()
    optimizer = new_optimizer(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    trainer = Trainer(
        model,
        batches(),
        None,
        optimizer,
        CRITERION,
        "cpu",
        scheduler=scheduler,
        scheduler_interval=interval,
        gradient_accumulation_steps=group,
    )
    trainer.engine.add_event_handler(
        engines.Events.EPOCH_COMPLETED, lambda: trainer._loop.learning_rate.after_epoch({}, "train_loss")
    )
    losses = trained(trainer)

    def slower(optimizer: Any) -> None:
        optimizer.param_groups[0]["lr"] *= 0.8

    hand = {"after_step" if interval == "step" else "after_epoch": slower}
    assert losses == pytest.approx(by_hand(same, group=group, **hand), abs=1e-6)  # type: ignore[arg-type]
    steps = EPOCHS * -(-BATCHES // group) if interval == "step" else EPOCHS
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * 0.8**steps)


class Keyed(torch.nn.Module):
    """Takes its inputs by name, as models of Hugging Face do."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Any, mask: Any = None) -> dict[str, Any]:
        assert mask is None
        return {"logits": self.inner(features)}


def test_losses_of_dict_batches_equal_those_of_a_hand_written_loop() -> None:
    model, same = Keyed(network()), network()
    given = [{"features": x, "labels": y, "id": ["a", "b"]} for x, y in batches()]
    losses = trained(Trainer(model, given, None, new_optimizer(model), CRITERION, "cpu"))
    assert losses == pytest.approx(by_hand(same), abs=1e-6)


def test_shuffled_loaders_yield_the_order_of_a_hand_written_loop() -> None:
    """Validation draws random numbers, too: a data loader takes a seed each time it is iterated."""
    data = torch.utils.data.TensorDataset(
        torch.arange(20.0).reshape(20, 1), torch.zeros(20, dtype=torch.long)
    )
    train = torch.utils.data.DataLoader(data, batch_size=6, shuffle=True)
    val = torch.utils.data.DataLoader(data, batch_size=7)
    expected = []
    torch.manual_seed(2)
    for _ in range(3):
        expected += [x.flatten().tolist() for x, _ in train]
        list(val)
    seen: list[list[float]] = []
    model = torch.nn.Linear(1, 2)
    trainer = Trainer(model, train, val, new_optimizer(model), CRITERION, "cpu")
    trainer.engine.add_event_handler(
        engines.Events.GET_BATCH_COMPLETED,
        lambda engine: seen.append(engine.state.batch[0].flatten().tolist()),
    )
    trained(trainer)
    assert seen == expected


def test_the_loss_of_an_epoch_is_the_mean_over_samples() -> None:
    """The last batch has three samples of 51."""
    model = network().eval()
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    expected = {"train_loss": CRITERION(model(x), y).item()}
    expected["val_loss"] = expected["train_loss"]
    right = float((model(x).argmax(dim=1) == y).double().mean())
    frozen = torch.optim.SGD(model.parameters(), 0.0)
    model[2].p = 0.0
    trainer = Trainer(model, batches(), batches(), frozen, CRITERION, "cpu")
    trained(trainer, epochs=1)
    metrics = trainer.engine.state.metrics
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["train_accuracy"] == metrics["val_accuracy"] == pytest.approx(right)
    assert trainer.validate()["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-6)


class Shrinking:
    """Has no length, and a different number of batches each time."""

    def __init__(self) -> None:
        self.left = 5

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.left -= 1
        return iter(batches()[: self.left])


def test_an_epoch_ends_when_its_loader_ends() -> None:
    model = network()
    trainer = Trainer(model, Shrinking(), Shrinking(), new_optimizer(model), CRITERION, "cpu")
    ends: list[int] = []
    trainer.engine.add_event_handler(
        engines.Events.EPOCH_COMPLETED, lambda engine: ends.append(engine.state.iteration)
    )
    trained(trainer)
    assert ends == [4, 7, 9]


def test_an_exhausted_iterator_is_an_error() -> None:
    model = network()
    trainer = Trainer(model, iter(batches()), None, new_optimizer(model), CRITERION, "cpu")
    with pytest.raises(ValueError, match="no batches in epoch 2; an iterator yields its batches only once"):
        trained(trainer)


def test_a_sampler_receives_its_epoch() -> None:
    epochs: list[int] = []

    class Loader(list[Any]):
        class sampler:  # noqa: N801 - the attribute of a data loader
            set_epoch = epochs.append

    model = network()
    trained(Trainer(model, Loader(batches()), None, new_optimizer(model), CRITERION, "cpu"))
    assert epochs == [0, 1, 2]


def test_gradients_from_before_do_not_leak_into_the_first_step() -> None:
    model, same = network(), network()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    losses = trained(Trainer(model, batches(), None, new_optimizer(model), CRITERION, "cpu"))
    assert losses == pytest.approx(by_hand(same), abs=1e-6)


def test_an_exception_of_the_model_is_raised_without_log_records(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(torch.nn.Linear):
        def forward(self, _: Any) -> Any:
            raise RuntimeError("of the model")

    model = Broken(5, 2)
    trainer = Trainer(model, batches(), None, new_optimizer(model), CRITERION, "cpu")
    with pytest.raises(RuntimeError, match="of the model"):
        trained(trainer)
    assert not caplog.records


def test_the_loss_of_a_step_must_be_one_number() -> None:
    model = network()
    criterion = torch.nn.CrossEntropyLoss(reduction="none")
    trainer = Trainer(model, batches(), None, new_optimizer(model), criterion, "cpu")
    with pytest.raises(ValueError, match=r"a tensor of one element, got a tensor of shape \(8,\)"):
        trained(trainer)


def test_a_learning_rate_of_0_leaves_the_weights_alone() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    trained(Trainer(model, batches(), batches(), torch.optim.SGD(model.parameters(), 0.0), CRITERION, "cpu"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_epoch_after_a_terminated_one_has_all_batches() -> None:
    model = network()
    trainer = Trainer(model, batches(), None, new_optimizer(model), CRITERION, "cpu")
    ends: list[int] = []
    trainer.engine.add_event_handler(
        engines.Events.ITERATION_COMPLETED(once=2), lambda engine: engine.terminate_epoch()
    )
    trainer.engine.add_event_handler(
        engines.Events.EPOCH_COMPLETED, lambda engine: ends.append(engine.state.iteration)
    )
    trained(trainer)
    assert ends == [2, 2 + BATCHES, 2 + 2 * BATCHES]


def test_the_error_about_a_value_of_compute_metrics_names_it() -> None:
    model = network()
    trainer = Trainer(
        model,
        batches(),
        batches(),
        new_optimizer(model),
        CRITERION,
        "cpu",
        compute_metrics=lambda *_: {"f1": torch.ones(3)},
    )
    with pytest.raises(ValueError, match="f1 of compute_metrics must be one number, got 3 elements"):
        trainer.validate()
