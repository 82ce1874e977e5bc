"""Values of metrics: numbers of any library, also on an accelerator."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from mlflow_sysmetrics.training.values import Pending, as_number, as_step, fetch


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (-0.5, -0.5),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.array(2.5), 2.5),
        (np.array([[3]]), 3.0),
        (math.inf, math.inf),
    ],
)
def test_a_number_of_any_library_is_converted(value: object, number: float) -> None:
    assert as_number("loss", value) == number


def test_nan_stays_nan() -> None:
    value = as_number("loss", math.nan)
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1.0], {"a": 1}, object(), 1j])
def test_any_other_value_is_a_type_error_that_names_the_metric(value: object) -> None:
    with pytest.raises(TypeError, match="train/loss must be a number, got "):
        as_number("train/loss", value)


@pytest.mark.parametrize("value", [np.ones(2), np.ones((0,)), 10**400])
def test_several_elements_and_too_large_numbers_are_value_errors(value: object) -> None:
    with pytest.raises(ValueError, match="train/loss must"):
        as_number("train/loss", value)


@pytest.mark.parametrize("value", [5, np.int64(5), np.uint8(5), np.array(5)])
def test_a_step_becomes_an_integer_that_a_request_can_hold(value: object) -> None:
    step = as_step("step", value)
    assert type(step) is int
    assert step == 5


@pytest.mark.parametrize(
    "value", [-1, True, 5.0, "5", None, np.float64(5), np.array([1, 2]), 2**63, np.uint64(2**63)]
)
def test_any_other_step_is_an_error_that_names_the_axis(value: object) -> None:
    with pytest.raises(ValueError, match=r"step must be an integer from 0 to \d+, got "):
        as_step("step", value)


class Tensor:
    """A tensor on an accelerator, with the methods that are called here."""

    fetched: ClassVar[list[list[float]]] = []

    def __init__(self, numbers: list[float], device: str = "cuda:0") -> None:
        self.numbers = numbers
        self.device = type("Device", (), {"type": device.partition(":")[0]})
        self.device = _DEVICES.setdefault(device, self.device)
        self.shape = (len(numbers),)

    def __float__(self) -> float:
        raise AssertionError("this would wait for the device")

    def detach(self) -> Tensor:
        return self

    def clone(self) -> Tensor:
        twin = Tensor(list(self.numbers))
        twin.device = self.device
        return twin

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        del shape
        return self

    def to(self, dtype: str) -> Tensor:
        assert (dtype == "float32") == (self.device.type == "mps")
        return self

    def tolist(self) -> list[float]:
        self.fetched.append(self.numbers)
        return self.numbers


_DEVICES: dict[str, Any] = {}


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A torch whose tensors are on accelerators, which test machines lack."""
    module: Any = ModuleType("torch")
    module.Tensor = Tensor
    module.is_complex = lambda _: False
    module.float32, module.float64 = "float32", "float64"
    module.stack = lambda tensors: Tensor([one.numbers[0] for one in tensors])
    monkeypatch.setitem(sys.modules, "torch", module)
    Tensor.fetched.clear()
    return module


@pytest.mark.usefixtures("torch")
def test_a_value_on_an_accelerator_is_copied_without_waiting() -> None:
    loss = Tensor([0.5])
    pending = as_number("loss", loss)
    assert isinstance(pending, Pending)
    loss.numbers[0] = 9.0  # as a training that adds in place
    assert fetch([pending]) == [0.5]


@pytest.mark.usefixtures("torch")
def test_values_are_fetched_with_one_synchronisation_per_device() -> None:
    values = [Tensor([1.0]), Tensor([2.0], "cuda:1"), Tensor([3.0]), Tensor([4.0], "mps")]
    pending = [as_number("loss", value) for value in values]
    assert fetch([one for one in pending if isinstance(one, Pending)]) == [1.0, 2.0, 3.0, 4.0]
    assert Tensor.fetched == [[1.0, 3.0], [2.0], [4.0]]


@pytest.mark.usefixtures("torch")
def test_a_tensor_of_several_elements_is_refused_without_waiting() -> None:
    with pytest.raises(ValueError, match=r"loss must be one number, got 2 elements"):
        as_number("loss", Tensor([1.0, 2.0]))


@pytest.mark.heavy
def test_a_tensor_of_torch_is_converted() -> None:
    torch = pytest.importorskip("torch")
    assert as_number("loss", torch.tensor(0.25, requires_grad=True)) == 0.25
    assert as_number("loss", torch.tensor([[3]], dtype=torch.bfloat16)) == 3.0
    with pytest.raises(TypeError, match="complex"):
        as_number("loss", torch.tensor(1j))
