"""What of a batch goes into the model, and what are the labels."""

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

CPU = torch.device("cpu")


class Model(torch.nn.Module):
    """Computes its loss, if it gets labels."""

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> Any:
        loss = None if labels is None else (input_ids - labels).pow(2).mean()
        return SimpleNamespace(logits=input_ids * 2, loss=loss)


TAKES = forward_parameters(Model())


def test_labels_are_taken_out_and_other_keys_matched_to_forward() -> None:
    batch = {"input_ids": 1, "labels": 2, "idx": 3}
    assert split(batch, TAKES, loss_of_model=False) == ({"input_ids": 1}, 2)
    assert batch == {"input_ids": 1, "labels": 2, "idx": 3}


@pytest.mark.parametrize("name", ["labels", "label", "targets", "target"])
def test_labels_have_several_names(name: str) -> None:
    assert split({"input_ids": 1, name: 2}, TAKES, loss_of_model=False) == ({"input_ids": 1}, 2)


def test_a_model_that_computes_its_loss_gets_the_labels() -> None:
    batch = UserDict({"input_ids": 1, "labels": 2})  # as the encodings of Hugging Face
    assert split(batch, TAKES, loss_of_model=True) == ({"input_ids": 1, "labels": 2}, 2)


def test_a_model_that_takes_all_keys_gets_them() -> None:
    class Open(torch.nn.Module):
        def forward(self, **named: Any) -> Any:
            return named

    takes = forward_parameters(Open())
    assert split({"a": 1, "b": 2, "labels": 3}, takes, loss_of_model=False) == ({"a": 1, "b": 2}, 3)


@pytest.mark.parametrize("kind", [tuple, list])
def test_the_last_of_a_tuple_are_the_labels(kind: Any) -> None:
    assert split(kind((1, 2, 3)), TAKES, loss_of_model=False) == ((1, 2), 3)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3), "a batch is a Tensor, neither a dict nor .*prepare_batch"),
        ((1,), "a batch is a tuple"),
        ({"input_ids": 1}, r"the keys \['input_ids'\], none of which is .*'labels'.*prepare_batch"),
        ({"x": 1, "labels": 2}, r"the keys \['labels', 'x'\], and forward\(\) takes \['attention_mask', "),
    ],
)
def test_what_does_not_fit_says_what_to_do(batch: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        split(batch, TAKES, loss_of_model=False)


def test_a_tuple_has_no_labels_for_a_model_that_computes_its_loss() -> None:
    with pytest.raises(TypeError, match="pass a criterion"):
        split((1, 2), TAKES, loss_of_model=True)


def test_a_function_of_the_caller_prepares_pairs() -> None:
    assert prepared({"x": 1, "y": 2}, lambda batch: (batch["x"], batch["y"])) == (1, 2)
    with pytest.raises(TypeError, match=r"prepare_batch returned a dict, and not \(inputs, labels\)"):
        prepared(1, lambda _: {})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # while torch.compile is imported
def test_wrappers_do_not_hide_what_forward_takes() -> None:
    model = Model()
    for wrapped in (torch.nn.DataParallel(model), torch.compile(model)):
        assert unwrapped(wrapped) is model
        assert forward_parameters(wrapped) == TAKES


def test_tensors_are_moved_wherever_they_are() -> None:
    pair = namedtuple("pair", "x y")
    meta = torch.device("meta")
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2)])
    batch = {"a": [torch.zeros(1)], "b": (torch.zeros(2), "text"), "c": pair(torch.zeros(3), 4)}
    there = moved(batch, meta)
    assert there["a"][0].device == there["b"][0].device == there["c"].x.device == meta
    assert there["b"][1] == "text"
    assert isinstance(there["c"], pair)
    assert there["c"].y == 4
    assert torch.equal(moved(packed, CPU).data, packed.data)  # a tuple that cannot be made of its parts


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


def test_the_loss_of_the_model_is_taken_without_a_criterion() -> None:
    forward = Forward(Model(), None, CPU, None)
    outcome = forward({"input_ids": torch.ones(2, 1), "labels": torch.zeros(2, 1)})
    assert outcome.loss == 1
    assert torch.equal(outcome.logits, torch.full((2, 1), 2.0))
    assert outcome.samples == 2


def test_a_model_without_loss_needs_a_criterion() -> None:
    with pytest.raises(TypeError, match="without one; pass a criterion"):
        Forward(Model(), None, CPU, None)({"input_ids": torch.ones(1)})


@pytest.mark.parametrize("inputs", [torch.ones(1), (torch.ones(1),), {"input_ids": torch.ones(1)}])
def test_prepared_inputs_become_the_arguments_of_the_model(inputs: Any) -> None:
    def criterion(logits: Any, labels: Any) -> Any:
        return (logits + labels).sum()

    assert Forward(Model(), criterion, CPU, lambda _: (inputs, torch.ones(1)))("a batch").loss == 3
