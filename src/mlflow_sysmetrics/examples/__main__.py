"""Runs the example: ``python -m mlflow_sysmetrics.examples train|hpo [key=value ...]``.

::

    python -m mlflow_sysmetrics.examples train task=criteria training.num_epochs=2
    python -m mlflow_sysmetrics.examples hpo stage=stage0 task=criteria

The runs go to the store of MLFLOW_TRACKING_URI, by default to mlflow.db in the current directory. Exits with
2 if an argument is wrong, with 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.training.extras import needed

_DEFAULT_STORE = "sqlite:///mlflow.db"
#: trials and epochs of the stages of a search
STAGES = {"stage0": (4, 2), "stage1": (8, 3), "stage2": (16, 4)}
_ACTIONS = ("train", "hpo")
_USAGE = "usage: python -m mlflow_sysmetrics.examples train|hpo [key=value ...]"
_COLUMNS = 80
_FAILED, _WRONG_USE, _INTERRUPTED = 1, 2, 130


def defaults() -> dict[str, Any]:
    """Returns the configuration, whose values ``key=value`` replaces."""
    return {
        "task": "criteria",
        "seed": 0,
        "model": {"encoder_name": "bag-of-words", "hidden_size": 32, "dropout": 0.1},
        "training": {
            "num_epochs": 5,
            "batch_size": 32,
            "optimizer": {"lr": 0.05, "weight_decay": 0.01},
        },
        "stage": "stage0",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"]):
        print(_help())
        return 0
    config = defaults()
    try:
        _check_action(given)
        for one in given[1:]:
            set_value(config, one)
        print("Importing MLflow and torch, which takes a few seconds the first time ...", flush=True)
        needed("torch", extra="train", by="The example")
        if given[0] == "hpo":
            needed("optuna", extra="hpo", by="The example hpo")
    except (ValueError, ModuleNotFoundError) as error:
        print(f"{_USAGE}\n\n{_wrapped(f'Error: {error}', indent='  ')}", file=sys.stderr)
        return _WRONG_USE
    try:
        return _run(given[0], config.pop("stage"), config)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED


def _store_problem(mlflow: Any) -> str | None:
    """Returns why no run can be made at the tracking URI, and what to do; None if it can be read."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    try:
        mlflow.search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - MLflow, its database, the network or a plugin may raise anything
        fault = fault_of_error(error, uri)
        return f"{redacted(uri)}: {fault.reason.rstrip('.')}. {remedy(fault, uri)}"
    return None


def _help() -> str:
    """Returns what the example does, and the values that ``key=value`` replaces."""
    stages = "; ".join(
        f"{name}: {trials} trials of {epochs} epochs" for name, (trials, epochs) in STAGES.items()
    )
    store = (
        "The runs go to the store of MLFLOW_TRACKING_URI, by default to mlflow.db in the current directory."
    )
    keys = [f"  {key}={value}" for key, value in _items(defaults())]
    return "\n".join(
        [
            _USAGE,
            "",
            _wrapped(
                f"Trains a small text classifier (train), or searches for its best options (hpo). {store}"
            ),
            "",
            "Keys and their values:",
            *keys,
            _wrapped(f"Stages of a search: {stages}.", indent="  "),
            "",
            "Exit codes: 0 done; 1 failed; 2 an argument is wrong; 130 after Ctrl-C.",
        ]
    )


def _wrapped(text: str, *, indent: str = "") -> str:
    return textwrap.fill(
        text, _COLUMNS, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _check_action(given: Sequence[str]) -> None:
    if not given or given[0] not in _ACTIONS:
        raise ValueError(f"the first argument must be train or hpo, got {given[0] if given else ''!r}")


def set_value(config: dict[str, Any], argument: str) -> None:
    """Sets one value of a configuration in place.

    Args:
        config: the configuration.
        argument: such as ``training.num_epochs=2``.

    Raises:
        ValueError: there is no such key, or the value has another type.
    """
    key, equals, text = argument.partition("=")
    *path, last = key.split(".")
    place = config
    for name in path:
        inner = place.get(name)
        place = inner if isinstance(inner, dict) else {}
    if key == "stage" and text not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {text!r}")
    if not equals or last not in place or isinstance(place[last], dict):
        keys = ", ".join(key for key, _ in _items(config))
        raise ValueError(f"an argument must be one of {keys} with =value, got {argument!r}")
    kind = type(place[last])
    try:
        place[last] = kind(text)
    except ValueError:
        raise ValueError(f"{key} must be like {place[last]!r}, got {text!r}") from None


def _items(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the keys and values of a configuration, keys of a mapping inside as ``outer.inner``."""
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        found += (
            _items(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
        )
    return found


def _run(action: str, stage: str, config: dict[str, Any]) -> int:
    os.environ.setdefault("MLFLOW_TRACKING_URI", _DEFAULT_STORE)
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    os.environ.setdefault(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
    )  # seven take minutes to say that a server is down
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    from mlflow_sysmetrics.examples import text_classifier

    if (broken := _store_problem(mlflow)) is not None:
        print(_wrapped(f"Error: {broken}", indent="  "), file=sys.stderr)
        return _FAILED
    task = config["task"]
    if action == "hpo":
        result = text_classifier.search(task, stage, STAGES[stage], config)
        print(
            f"Study {result.study_name}: {result.completed_trials} of {result.total_trials} trials completed."
        )
        print(f"Best: val_f1_macro {result.best_value:.3f} with {json.dumps(result.best_params)}")
        run_id = result.parent_run_id
    else:
        mlflow.set_experiment(f"training_{task}")
        with mlflow.start_run(run_name=f"{task}_{config['model']['encoder_name']}") as run:
            summary = text_classifier.train(config)
        print(f"Trained {summary['total_epochs']} epochs: val_f1_macro {summary['best_val_f1_macro']:.3f}.")
        run_id = run.info.run_id
    print(f"Run {run_id}. To see it: mlflow ui --backend-store-uri {os.environ['MLFLOW_TRACKING_URI']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
