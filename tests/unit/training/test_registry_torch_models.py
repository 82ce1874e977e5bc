"""PyTorch models are tried without a trace, and their samples and outputs are described."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mlflow_sysmetrics.training.registry import torch_models
from mlflow_sysmetrics.training.registry.flavors import TorchFlavor

pytestmark = pytest.mark.heavy

nn = torch.nn
GLOBAL_RANDOM: Any = np.random  # NumPy's global generator, which many models use


class Merging(nn.Module):
    """Counts calls of `train`, at which LoRA layers would change their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.merges = 0

    def train(self, mode: bool = True) -> Any:
        self.merges += 1
        return super().train(mode)

    def forward(self, x: Any) -> Any:
        return self.linear(x)


class Output(dict[str, Any]):
    """What Hugging Face's models return: a mapping with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Tokens(nn.Module):
    """Takes two tensors by name and returns logits with other outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 3)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
        hidden = self.embed(input_ids)
        if attention_mask is not None:
            hidden = hidden * attention_mask[..., None]
        return Output(loss=None, logits=hidden.mean(1))


class Batch(nn.Module):
    """Takes its tensors as one mapping."""

    def forward(self, batch: dict[str, Any]) -> Any:
        return batch["a"] + batch["b"]


class Positions(nn.Module):
    """Takes any number of tensors."""

    def forward(self, *tensors: Any) -> Any:
        return sum(tensors), tensors[0]


@pytest.fixture
def net() -> Any:
    """A model in training mode, with one part in evaluation mode."""
    made = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2)
    )
    made.train()
    made[3].eval()
    return made


def test_each_part_keeps_its_mode(net: Any) -> None:
    before = [part.training for part in net.modules()]
    torch_models.try_on(net, torch.randn(1, 4))  # BatchNorm refuses one row in training
    assert [part.training for part in net.modules()] == before


def test_each_part_keeps_its_mode_after_a_failure(net: Any) -> None:
    before = [part.training for part in net.modules()]
    with pytest.raises(RuntimeError):
        torch_models.try_on(net, torch.randn(1, 3))
    assert [part.training for part in net.modules()] == before


def test_weights_and_buffers_are_unchanged(net: Any) -> None:
    before = copy.deepcopy(net.state_dict())
    torch_models.try_on(net, torch.randn(8, 4))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_no_gradients_are_computed(net: Any) -> None:
    sample = torch.randn(8, 4, requires_grad=True)
    torch_models.try_on(net, sample)
    assert sample.grad is None
    assert all(weight.grad is None for weight in net.parameters())


def test_a_model_that_merges_its_weights_in_evaluation_mode_is_not_merged() -> None:
    model = Merging()
    torch_models.try_on(model, torch.ones(1, 2))
    assert model.merges == 0


class Noisy(nn.Module):
    """Draws random numbers from every generator, in any mode."""

    def forward(self, x: Any) -> Any:
        return x + torch.randn(1) + random.random() + float(GLOBAL_RANDOM.rand())


@pytest.mark.parametrize(
    "draw",
    [lambda: float(torch.rand(1)), random.random, lambda: float(GLOBAL_RANDOM.rand())],
    ids=["torch", "python", "numpy"],
)
def test_random_numbers_continue_as_if_the_model_had_not_been_tried(draw: Callable[[], float]) -> None:
    def seed() -> None:
        torch.manual_seed(1)
        random.seed(1)
        GLOBAL_RANDOM.seed(1)

    seed()
    expected = draw()
    seed()
    torch_models.try_on(Noisy(), torch.ones(1, 2))
    assert draw() == expected


def test_a_tensor_becomes_an_array_with_its_own_memory() -> None:
    sample = torch.ones(1, 2)
    found = torch_models.try_on(nn.Linear(2, 1), sample)
    sample += 1
    assert isinstance(found.inputs, np.ndarray)
    assert found.inputs.tolist() == [[1.0, 1.0]]
    assert found.plain


def test_an_array_can_be_a_sample() -> None:
    found = torch_models.try_on(nn.Linear(2, 1), np.ones((3, 2), dtype=np.float32))
    assert found.outputs.shape == (3, 1)


def test_bfloat16_is_described_as_float32() -> None:
    found = torch_models.try_on(nn.Linear(2, 1).bfloat16(), torch.ones(1, 2, dtype=torch.bfloat16))
    assert found.outputs.dtype == np.float32


IDS = torch.ones(1, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "sample",
    [{"input_ids": IDS, "attention_mask": IDS}, (IDS, IDS), [IDS, IDS]],
    ids=["mapping", "tuple", "list"],
)
def test_several_tensors_get_the_parameter_names_of_forward(sample: Any) -> None:
    found = torch_models.try_on(Tokens(), sample)
    assert list(found.inputs) == ["input_ids", "attention_mask"]
    assert found.outputs.shape == (1, 3)
    assert not found.plain


def test_the_logits_of_a_hugging_face_model_are_its_outputs() -> None:
    found = torch_models.try_on(Tokens(), IDS)
    assert isinstance(found.outputs, np.ndarray)
    assert not found.plain  # MLflow's wrapper accepts only a tensor


def test_a_model_that_takes_one_mapping_is_called_with_it() -> None:
    found = torch_models.try_on(Batch(), {"a": torch.ones(1), "b": torch.ones(1)})
    assert found.outputs.tolist() == [2.0]


def test_inputs_and_outputs_without_names_are_numbered() -> None:
    found = torch_models.try_on(Positions(), (torch.ones(1), torch.ones(1)))
    assert list(found.inputs) == ["input_0", "input_1"]
    assert {name: value.tolist() for name, value in found.outputs.items()} == {
        "output_0": [2.0],
        "output_1": [1.0],
    }


def test_outputs_without_a_tensor_are_rejected() -> None:
    with pytest.raises(TypeError, match="must return a tensor or tensors, got str"):
        torch_models.plain_outputs("no")


def test_a_data_parallel_wrapper_is_removed() -> None:
    inner = nn.Linear(2, 1)
    assert torch_models.unwrapped(nn.DataParallel(inner)) is inner


def test_a_compilation_wrapper_is_removed() -> None:
    inner = nn.Linear(2, 1)
    assert torch_models.unwrapped(torch.compile(inner, backend="eager")) is inner


def test_a_model_with_the_name_of_a_wrapper_is_not_unwrapped() -> None:
    class DataParallel(nn.Module):
        """A model that is not torch's wrapper."""

    model = DataParallel()
    assert torch_models.unwrapped(model) is model


def test_a_model_on_the_cpu_is_not_copied(net: Any) -> None:
    assert torch_models.on_cpu(net) is net


def test_a_copy_is_the_same_model_with_its_own_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight  # tied
    model[2].bias.requires_grad_(requires_grad=False)
    model[1].eval()
    copied = torch_models.cpu_copy(model)
    assert copied[2].weight is copied[0].weight
    assert copied[0].weight is not model[0].weight
    assert [one.requires_grad for one in copied.parameters()] == [
        one.requires_grad for one in model.parameters()
    ]
    assert [part.training for part in copied.modules()] == [part.training for part in model.modules()]
    with torch.no_grad():
        copied[0].weight.zero_()
        copied[1].running_mean.fill_(7)
    assert model[0].weight.abs().sum() > 0
    assert model[1].running_mean.abs().sum() == 0


def test_a_model_that_cannot_be_copied_is_saved_from_its_device(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(2, 1, device="meta")
    assert torch_models.on_cpu(model) is model
    assert "only a machine with meta will be able to load it" in caplog.text


def test_an_export_example_has_two_rows_so_that_the_batch_axis_stays_free() -> None:
    flavor = TorchFlavor()
    assert flavor.example(np.ones((1, 3)), "pt2").shape == (2, 3)
    assert flavor.example(np.ones((5, 3)), "pt2").shape == (5, 3)
    assert flavor.example(np.ones((1, 3)), "pickle").shape == (1, 3)


def test_an_export_is_made_in_evaluation_mode(net: Any) -> None:
    with TorchFlavor().ready_to_save(net, "pt2") as ready:
        assert not any(part.training for part in ready.modules())
    assert net.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no NVIDIA GPU")
def test_a_model_on_a_gpu_stays_there_and_its_copy_is_on_the_cpu(net: Any) -> None:
    net.cuda()
    net[4].weight = net[4].weight  # as tied weights are
    torch.manual_seed(1)
    expected = float(torch.rand(1, device="cuda"))
    torch.manual_seed(1)
    allocated = torch.cuda.memory_allocated()
    found = torch_models.try_on(net, torch.randn(1, 4))
    copied = torch_models.on_cpu(net)
    assert float(torch.rand(1, device="cuda")) == expected
    assert torch.cuda.memory_allocated() <= allocated + 4096
    assert {weight.device.type for weight in net.parameters()} == {"cuda"}
    assert {tensor.device.type for tensor in copied.state_dict().values()} == {"cpu"}
    assert [part.training for part in copied.modules()] == [part.training for part in net.modules()]
    assert found.outputs.shape == (1, 2)
