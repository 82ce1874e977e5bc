"""The parameters of a training: what the Trainer knows of it, and the configuration of its program."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, PendingCall
from mlflow_sysmetrics.training.run_writes import params_of, write
from mlflow_sysmetrics.training.trainer.arguments import Arguments, length
from mlflow_sysmetrics.training.trainer.batches import unwrapped

_FILE = "config.yaml"
_THREAD = "sysmetrics-parameters"
_WAIT_SECONDS = 5.0  # at the end; the thread continues after it
_PLAIN = (bool, int, float, str)

_logger = logging.getLogger("mlflow_sysmetrics")


class ParametersLog:
    """Logs parameters and a configuration to a run in a thread, so that the training does not wait for it.

    Args:
        tracking_uri: tracking server of the run.
        run_id: the run.
        values: parameters by name.
        config: the configuration, which also becomes `config.yaml`; None for none.
    """

    def __init__(
        self, tracking_uri: str, run_id: str, values: Mapping[str, object], config: Mapping[str, Any] | None
    ) -> None:
        self._uri = tracking_uri
        self._run_id = run_id
        # What the user calls a parameter goes first.
        self._params = params_of("", {**values, **flattened(config or {})})
        self._params = {key: cleaned(value) for key, value in self._params.items()}
        self._file = None if config is None else as_yaml(config)
        self._writing: PendingCall[None] | None = self._start()

    def finish(self) -> None:
        """Waits a moment for the server, and warns if the parameters are not on the run."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result(_WAIT_SECONDS)
        except CallTimeout:
            self._warn(f"no answer after {_WAIT_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 - of MLflow, its store, or an object store's library
            reraise_interruption(error)
            self._warn(cleaned(str(error), self._uri))

    def _start(self) -> PendingCall[None] | None:
        try:
            return PendingCall(self._write, _THREAD)
        except ThreadUnavailable as error:
            self._warn(str(error))
            return None

    def _write(self) -> None:
        client = open_client(self._uri)
        present = client.get_run(self._run_id).data.params
        from mlflow.entities import Param

        missing = [Param(key, value) for key, value in self._params.items() if key not in present]
        write(client, self._run_id, params=missing)
        # MLflow never changes a parameter: after a resume with more epochs, the run has the first number.
        changed = [key for key, value in self._params.items() if present.get(key, value) != value]
        if changed:
            _logger.info(
                "mlflow-sysmetrics: run %s keeps the first values of %s.", self._run_id, ", ".join(changed)
            )
        if self._file is not None:
            client.log_text(self._run_id, self._file, _FILE)

    def _warn(self, reason: str) -> None:
        _logger.warning(
            "mlflow-sysmetrics: parameters of the training are missing on run %s: %s", self._run_id, reason
        )


def parameters_of(arguments: Arguments, device: torch.device) -> dict[str, object]:
    """Returns what a Trainer knows of its training, by name: ``training.*`` and ``model.*``.

    Args:
        arguments: the arguments of `Trainer`.
        device: the device of the training.
    """
    loader = arguments.train_loader
    batches = getattr(loader, "batch_sampler", None)
    known: dict[str, object] = {
        "training.num_epochs": arguments.num_epochs,
        "training.batch_size": getattr(loader, "batch_size", None) or getattr(batches, "batch_size", None),
        "training.batches_per_epoch": length(loader),
        "training.train_samples": _samples(loader),
        "training.val_samples": _samples(arguments.val_loader),
        "training.criterion": None if arguments.criterion is None else _name(arguments.criterion),
        "training.scheduler": None if arguments.scheduler is None else _name(arguments.scheduler),
        "training.device": str(device),
        "training.devices": _devices(arguments.model),
        "training.seed": torch.initial_seed(),
        "training.gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "training.gradient_clip": arguments.gradient_clip,
        "training.patience": arguments.patience,
        "training.early_stopping_metric": arguments.early_stopping_metric,
        "training.use_amp": arguments.use_amp,
        "training.amp_dtype": arguments.amp_name if arguments.use_amp else None,
    }
    known |= dict(_optimizer(arguments.optimizer))
    known |= dict(_model(unwrapped(arguments.model)))
    return {name: value for name, value in known.items() if value is not None}


def flattened(config: Mapping[str, Any]) -> dict[str, object]:
    """Returns a nested configuration as values by dotted names; a list of plain values stays one value."""
    return dict(_leaves(_plain(config), ""))


def as_yaml(config: Mapping[str, Any]) -> str:
    """Returns a configuration as YAML, with secrets that are known masked."""
    yaml = import_module("yaml")  # one of MLflow's requirements
    return cleaned(yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, object]]:
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value)
    )
    if not nested or not value:
        yield name, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from _leaves(item, f"{name}.{key}" if name else str(key))


def _plain(value: Any) -> Any:
    """Returns a value made of what YAML has; anything else becomes its text."""
    if type(value).__module__.startswith("omegaconf."):
        return _plain(import_module("omegaconf").OmegaConf.to_container(value, resolve=True))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if value is None or type(value) in _PLAIN:
        return value
    number = getattr(value, "item", None)  # of NumPy or torch
    if callable(number) and getattr(value, "shape", None) == ():
        return _plain(number())
    return str(value)


def _optimizer(optimizer: Any) -> Iterator[tuple[str, object]]:
    yield "training.optimizer", _name(optimizer)
    first: dict[str, object] = {}
    for index, group in enumerate(optimizer.param_groups):
        # A scheduler has changed the rate by now; the initial one is the parameter.
        settings = {**group, "lr": group.get("initial_lr", group.get("lr"))}
        for name, value in settings.items():
            plain = _plain(value) if name not in {"params", "initial_lr"} else None
            if plain is None or isinstance(plain, dict) or first.get(name) == plain:
                continue
            yield f"training.optimizer.{name}" if index == 0 else f"training.optimizer.{index}.{name}", plain
            if index == 0:
                first[name] = plain


def _model(model: Any) -> Iterator[tuple[str, object]]:
    parameters = list(model.parameters())
    yield "model.class", type(model).__name__
    yield "model.name", getattr(getattr(model, "config", None), "_name_or_path", None) or None
    yield "model.parameters", sum(_count(one) for one in parameters)
    yield "model.trainable_parameters", sum(_count(one) for one in parameters if one.requires_grad)


def _count(parameter: Any) -> int:
    try:
        return int(parameter.numel())
    except (RuntimeError, ValueError) as error:  # a lazy parameter, which has no shape before the first batch
        reraise_interruption(error)
        return 0


def _devices(model: Any) -> int:
    """Returns the number of devices that a model is trained on."""
    ids: Sequence[object] | None = getattr(model, "device_ids", None)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else len(ids or ()) or 1


def _samples(loader: Any) -> int | None:
    dataset = getattr(loader, "dataset", None)
    return None if dataset is None else length(dataset)


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", None) or type(value).__name__)
