"""Values of NumPy survive a checkpoint: readable by torch, restored with their types, resumed without a difference."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import numpy as np

from mlflow_sysmetrics.training.trainer.checkpoints import Checkpoints
from mlflow_sysmetrics.training.trainer.plain_state import from_plain, to_plain

pytestmark = pytest.mark.heavy

VALUES = {
    "float64": np.float64(0.1),
    "float32": np.float32(0.1),
    "float16": np.float16(0.1),
    "longdouble": np.longdouble(0.5),
    "int64": np.int64(2**62),
    "uint8": np.uint8(255),
    "bool": np.bool_(True),
    "complex": np.complex128(1 + 2j),
    "array": np.arange(6.0).reshape(2, 3)[:, ::-1],
    "integers": np.arange(3, dtype=np.int32),
    "zero_dimensions": np.array(3.5),
    "empty": np.zeros((0, 2), dtype=np.float32),
}


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize(
    "around",
    [
        lambda value: {"lr": value},
        lambda value: {"groups": [{"betas": (value, 0.9)}]},
        lambda value: {"state": OrderedDict([(0, {3: value})])},
    ],
    ids=["top", "groups", "ordered"],
)
def test_a_value_of_numpy_is_readable_and_restored_with_its_type(
    tmp_path: Path, name: str, around: Callable[[Any], dict[str, Any]]
) -> None:
    def innermost(found: Any) -> Any:
        while isinstance(found, (dict, list, tuple)):
            found = next(iter(found.values())) if isinstance(found, dict) else found[0]
        return found

    state = around(VALUES[name])
    torch.save(to_plain(state), tmp_path / "file")
    loaded = torch.load(tmp_path / "file", weights_only=True)
    restored = from_plain(loaded)
    assert same(innermost(restored), VALUES[name])
    assert restored.keys() == state.keys()
    assert not isinstance(innermost(loaded), (np.generic, np.ndarray))


def test_a_state_without_numpy_is_written_as_it_is() -> None:
    state = {"a": 1, "b": [1.5, (True, None)], "c": OrderedDict(d=torch.ones(2))}
    assert to_plain(state) == state
    assert type(to_plain(state)["c"]) is OrderedDict
    assert from_plain(state) == state


def test_texts_of_numpy_become_texts() -> None:
    assert from_plain(to_plain({"a": np.str_("x"), "b": np.bytes_(b"y")})) == {"a": "x", "b": b"y"}
    assert type(to_plain({"a": np.str_("x")})["a"]) is str


@pytest.mark.parametrize(
    "value",
    [
        {np.int64(3): np.float32(0.5)},
        {(np.int64(1), "a"): np.int32(2), np.str_("b"): 1},
        OrderedDict([(np.int64(2), {np.uint8(1): [np.float64(0.5)]})]),
        Counter([np.int64(4), np.int64(4)]),
        {np.int64(1), np.float32(0.1)},
    ],
    ids=str,
)
def test_keys_and_members_of_numpy_become_plain_and_are_found_again(tmp_path: Path, value: Any) -> None:
    torch.save(to_plain({"state": value}), tmp_path / "file")
    restored = from_plain(torch.load(tmp_path / "file", weights_only=True))["state"]
    assert type(restored) is type(value)
    assert restored == value
    assert [type(one) for one in getattr(restored, "values", list)()] == [
        type(one) for one in getattr(value, "values", list)()
    ]


class Unknown:
    """A type that torch does not read safely."""


@pytest.mark.parametrize(
    "value",
    [Unknown(), np.array([Unknown()]), np.datetime64("2020-01-01"), lambda: None, {"deep": [Unknown()]}],
)
def test_a_state_that_cannot_be_read_back_is_an_error_before_training(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match=r"^model_state_dict must consist of .*Convert that value"):
        Checkpoints(tmp_path).try_out({"epoch": 0, "model_state_dict": {"_extra_state": value}})
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_becomes_unreadable_is_a_warning_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for _ in range(3):
        assert checkpoints.save_latest({"optimizer_state_dict": Unknown()})
    assert caplog.text.count("optimizer_state_dict must consist of") == 1
    with pytest.raises(ValueError, match="cannot read the checkpoint"):
        checkpoints.load_latest()


def test_a_state_that_cannot_be_written_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not Checkpoints(tmp_path).save_latest({"optimizer_state_dict": lambda: None})
    assert "training continues without it" in caplog.text


# --- every optimizer and scheduler of torch ------------------------------------------------------------------------

OPTIMIZERS = {
    name: found
    for name, found in vars(torch.optim).items()
    if inspect.isclass(found)
    and issubclass(found, torch.optim.Optimizer)
    and found is not torch.optim.Optimizer
}
schedulers = torch.optim.lr_scheduler
# A scheduler of each kind, with numbers and counts of a type.
SCHEDULES: dict[str, Callable[[Any, type, type], Any]] = {
    "LambdaLR": lambda o, n, i: schedulers.LambdaLR(o, lambda e: n(np.exp(-e))),
    "MultiplicativeLR": lambda o, n, i: schedulers.MultiplicativeLR(o, lambda _: n(0.9)),
    "StepLR": lambda o, n, i: schedulers.StepLR(o, i(2), gamma=n(0.5)),
    "MultiStepLR": lambda o, n, i: schedulers.MultiStepLR(o, [i(1), i(4)], gamma=n(0.5)),
    "ConstantLR": lambda o, n, i: schedulers.ConstantLR(o, n(0.5), i(3)),
    "LinearLR": lambda o, n, i: schedulers.LinearLR(o, n(0.25), n(1.0), i(4)),
    "ExponentialLR": lambda o, n, i: schedulers.ExponentialLR(o, n(0.8)),
    "PolynomialLR": lambda o, n, i: schedulers.PolynomialLR(o, i(5), n(2.0)),
    "CosineAnnealingLR": lambda o, n, i: schedulers.CosineAnnealingLR(o, i(5), n(0.001)),
    "CosineAnnealingWarmRestarts": lambda o, n, i: schedulers.CosineAnnealingWarmRestarts(
        o,
        2,  # np.int64 is refused
        2,
        float(n(0.001)),  # as is np.float32
    ),
    "ReduceLROnPlateau": lambda o, n, i: schedulers.ReduceLROnPlateau(
        o, factor=float(n(0.5)), patience=i(0), threshold=n(0.5)
    ),
    "CyclicLR": lambda o, n, i: schedulers.CyclicLR(
        o, n(0.01), n(0.1), step_size_up=i(2), cycle_momentum=False
    ),
    "OneCycleLR": lambda o, n, i: schedulers.OneCycleLR(o, n(0.1), total_steps=20, cycle_momentum=False),
    "SequentialLR": lambda o, n, i: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o, n(0.1), i(2)), schedulers.ExponentialLR(o, n(0.9))], [i(2)]
    ),
    "ChainedScheduler": lambda o, n, i: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, n(0.1), i(2)), schedulers.ExponentialLR(o, n(0.9))]
    ),
    "SWALR": lambda o, n, i: torch.optim.swa_utils.SWALR(o, n(0.05), anneal_epochs=4),
}
TYPES = [float, np.float64, np.float32]


class Parts:
    """A model with an optimizer and a scheduler, made anew as by a restarted program."""

    def __init__(self, optimizer: str, scheduler: str, number: type) -> None:
        torch.manual_seed(0)
        sparse = optimizer == "SparseAdam"
        self.model = torch.nn.Embedding(8, 4, sparse=True) if sparse else torch.nn.Linear(4, 4, bias=False)
        kind = OPTIMIZERS[optimizer]
        self.optimizer = kind(self.model.parameters(), **_settings(kind, number))
        self.scheduler = SCHEDULES[scheduler](self.optimizer, number, int if number is float else np.int64)

    def train(self, steps: range) -> list[float]:
        rates = []
        for step in steps:

            def closure(step: int = step) -> Any:
                self.optimizer.zero_grad()
                data = torch.linspace(-1, 1, 8).reshape(2, 4) + step
                data = torch.tensor([step, 7]) if isinstance(self.model, torch.nn.Embedding) else data
                loss = self.model(data).pow(2).mean()
                loss.backward()
                return loss

            loss = self.optimizer.step(closure)
            needs_loss = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            self.scheduler.step(*([loss.item()] if needs_loss else []))
            rates.append(float(self.optimizer.param_groups[0]["lr"]))
        return rates

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scheduler")}

    def load(self, state: dict[str, Any]) -> None:
        for name, one in state.items():
            getattr(self, name).load_state_dict(one)


def _settings(kind: type, number: type) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters
    settings: dict[str, Any] = {"lr": number(np.logspace(-3, -1, 3)[1])}
    if isinstance(parameters["betas"].default if "betas" in parameters else None, tuple):
        # Adam and AdamW refuse betas of np.float32, which is no float.
        wide = float if number is float else np.float64
        settings["betas"] = tuple(wide(beta) for beta in parameters["betas"].default)
    if "weight_decay" in parameters:
        settings["weight_decay"] = number(0.01)
    return settings


def resumed_equals_uninterrupted(directory: Path, optimizer: str, scheduler: str, number: type) -> None:
    whole = Parts(optimizer, scheduler, number)
    rates = whole.train(range(6))
    first = Parts(optimizer, scheduler, number)
    before = first.train(range(3))
    checkpoints = Checkpoints(directory)
    checkpoints.try_out(first.state())
    assert checkpoints.save_latest(first.state())
    again = Parts(optimizer, scheduler, number)
    loaded = checkpoints.load_latest()
    assert loaded is not None
    again.load(loaded)
    assert before + again.train(range(3, 6)) == rates
    assert torch.equal(again.model.weight, whole.model.weight)


@pytest.mark.parametrize("number", TYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_optimizer_resumes_as_if_uninterrupted(tmp_path: Path, optimizer: str, number: type) -> None:
    resumed_equals_uninterrupted(tmp_path, optimizer, "ExponentialLR", number)


@pytest.mark.parametrize("number", TYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_every_scheduler_resumes_as_if_uninterrupted(tmp_path: Path, scheduler: str, number: type) -> None:
    resumed_equals_uninterrupted(tmp_path, "SGD", scheduler, number)


def test_no_scheduler_of_torch_is_forgotten() -> None:
    """Optimizers are found in torch; a new scheduler, which takes arguments of its own, fails here."""
    base = schedulers.LRScheduler
    modules = (schedulers, torch.optim.swa_utils)
    names = {name for module in modules for name, one in vars(module).items() if is_below(one, base)}
    assert names == SCHEDULES.keys()


def is_below(found: object, base: type) -> bool:
    return (
        isinstance(found, type) and issubclass(found, base) and found is not base and found.__name__[0] != "_"
    )
