"""Batches are split into the inputs of a model and labels, and moved to a device."""

from __future__ import annotations

from collections import UserDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mlflow_sysmetrics.training.trainer.batches import (
    Forward,
    forward_parameters,
    moved,
    prepared,
    samples_in,
    split,
    unwrapped,
)

pytestmark = pytest.mark.heavy

CPU = torch.device("cpu")


class Model(torch.nn.Module):
    """Computes its loss if it is given labels."""

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> Any:
        loss = None if labels is None else (input_ids - labels).pow(2).mean()
        return SimpleNamespace(logits=input_ids * 2, loss=loss)


TAKES = forward_parameters(Model())


def test_labels_are_removed_and_other_keys_matched_to_forward() -> None:
    batch = {"input_ids": 1, "labels": 2, "idx": 3}
    assert split(batch, TAKES, loss_of_model=False) == ({"input_ids": 1}, 2)
    assert batch == {"input_ids": 1, "labels": 2, "idx": 3}


@pytest.mark.parametrize("name", ["labels", "label", "targets", "target"])
def test_labels_can_have_several_names(name: str) -> None:
    assert split({"input_ids": 1, name: 2}, TAKES, loss_of_model=False) == ({"input_ids": 1}, 2)


def test_a_model_that_computes_its_loss_receives_the_labels() -> None:
    batch = UserDict({"input_ids": 1, "labels": 2})  # as Hugging Face's encodings
    assert split(batch, TAKES, loss_of_model=True) == ({"input_ids": 1, "labels": 2}, 2)


def test_a_model_that_accepts_any_key_receives_all() -> None:
    class Open(torch.nn.Module):
        def forward(self, **named: Any) -> Any:
            return named

    takes = forward_parameters(Open())
    assert split({"a": 1, "b": 2, "labels": 3}, takes, loss_of_model=False) == ({"a": 1, "b": 2}, 3)


@pytest.mark.parametrize("kind", [tuple, list])
def test_the_last_item_of_a_tuple_is_the_labels(kind: Any) -> None:
    assert split(kind((1, 2, 3)), TAKES, loss_of_model=False) == ((1, 2), 3)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3), r"a batch must be a dict or \(inputs, labels\), got a Tensor; pass prepare_batch"),
        ((1,), "got a tuple"),
        (
            {"input_ids": 1},
            r"must have one of the keys .*'labels'.*, got \['input_ids'\]; pass prepare_batch",
        ),
        ({"x": 1, "labels": 2}, r"forward\(\) takes, one of \['attention_mask', .*, got \['labels', 'x'\]"),
    ],
)
def test_the_error_about_an_unsuitable_batch_says_what_to_do(batch: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        split(batch, TAKES, loss_of_model=False)


def test_a_model_that_computes_its_loss_needs_batches_with_keys() -> None:
    with pytest.raises(TypeError, match="pass a criterion"):
        split((1, 2), TAKES, loss_of_model=True)


def test_a_function_of_the_user_prepares_batches() -> None:
    assert prepared({"x": 1, "y": 2}, lambda batch: (batch["x"], batch["y"])) == (1, 2)
    with pytest.raises(TypeError, match=r"prepare_batch must return \(inputs, labels\), got a dict"):
        prepared(1, lambda _: {})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # while torch.compile is imported
def test_wrappers_do_not_hide_the_parameters_of_forward() -> None:
    model = Model()
    for wrapped in (torch.nn.DataParallel(model), torch.compile(model)):
        assert unwrapped(wrapped) is model
        assert forward_parameters(wrapped) == TAKES


def test_tensors_are_moved_inside_containers_too() -> None:
    pair = namedtuple("pair", "x y")
    meta = torch.device("meta")
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2)])
    batch = {"a": [torch.zeros(1)], "b": (torch.zeros(2), "text"), "c": pair(torch.zeros(3), 4)}
    there = moved(batch, meta)
    assert there["a"][0].device == there["b"][0].device == there["c"].x.device == meta
    assert there["b"][1] == "text"
    assert isinstance(there["c"], pair)
    assert there["c"].y == 4
    assert torch.equal(moved(packed, CPU).data, packed.data)  # a tuple that cannot be built from its items


@pytest.mark.parametrize(
    ("labels", "inputs", "count"),
    [
        (torch.zeros(5), torch.zeros(7, 2), 5),
        (None, {"ids": torch.zeros(4, 9)}, 4),
        ({"boxes": [torch.zeros(6)]}, None, 6),
        (torch.tensor(1.0), (torch.zeros(3),), 3),
        (None, "text", 1),
    ],
)
def test_samples_are_counted_by_the_first_dimension(labels: Any, inputs: Any, count: int) -> None:
    assert samples_in(labels, inputs) == count


def test_without_a_criterion_the_loss_of_the_model_is_used() -> None:
    forward = Forward(Model(), None, CPU, None)
    outcome = forward({"input_ids": torch.ones(2, 1), "labels": torch.zeros(2, 1)})
    assert outcome.loss == 1
    assert torch.equal(outcome.logits, torch.full((2, 1), 2.0))
    assert outcome.samples == 2


def test_a_model_without_loss_needs_a_criterion() -> None:
    with pytest.raises(TypeError, match="returned a SimpleNamespace without one; pass a criterion"):
        Forward(Model(), None, CPU, None)({"input_ids": torch.ones(1)})


@pytest.mark.parametrize("inputs", [torch.ones(1), (torch.ones(1),), {"input_ids": torch.ones(1)}])
def test_prepared_inputs_become_the_arguments_of_the_model(inputs: Any) -> None:
    def criterion(logits: Any, labels: Any) -> Any:
        return (logits + labels).sum()

    assert Forward(Model(), criterion, CPU, lambda _: (inputs, torch.ones(1)))("a batch").loss == 3
