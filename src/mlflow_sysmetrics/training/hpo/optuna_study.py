"""The study in Optuna's storage: opened or resumed with sampler and pruner, and its attributes there.

A configuration file gives samplers and pruners as names with options.

The storage is checked before Optuna writes to it: MLflow's database is not for a second tool. Optuna and
MLflow both keep the version of their schema in a table ``alembic_version``. Whoever comes second finds the
other's version, fails with a message that does not name the cause, and leaves its tables behind.
Sources: optuna/optuna#2866, mlflow/mlflow#2923.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.training.hpo.objectives import Objectives

# User attributes in Optuna's storage, by which a later process finds the runs of a study and its trials.
STUDY_RUN_ID = "mlflow_parent_run_id"  #: of a study: its run; of a trial: the study run it was started for
TRIAL_RUN_ID = "mlflow_run_id"  #: of a trial: its run
PROCESS = "mlflow_sysmetrics_process"  #: of a trial: the process that runs it, see `runtime.process_identity`
ERROR = "error"  #: of a trial: what it raised, or what was wrong with what it returned
METRICS = "metrics"  #: of a study: the names of its objectives
_SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.GridSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "nsgaiii": optuna.samplers.NSGAIIISampler,
}
_PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "threshold": optuna.pruners.ThresholdPruner,
}
_TABLES_OF_MLFLOW = frozenset({"experiments", "runs", "latest_metrics"})
_MEMORY = (None, "", ":memory:")
T = TypeVar("T")


def open_optuna_study(
    name: str,
    objectives: Objectives,
    storage: str | optuna.storages.BaseStorage | None,
    *,
    sampler: object,
    sampler_config: Mapping[str, Any] | None,
    pruner: object,
    pruner_config: Mapping[str, Any] | None,
    seed: int | None,
    load_if_exists: bool,
) -> optuna.Study:
    """Creates a study, or loads the one of that name; the arguments are those of `OptunaRunner`.

    Raises:
        ValueError: an argument is invalid, the storage is MLflow's database, or the existing study has other
            objectives.
        optuna.exceptions.DuplicatedStudyError: the study exists and `load_if_exists` is False.
    """
    # Both are built first, so that invalid options leave no study in the storage.
    chosen_pruner = pruner_of(pruner, pruner_config)
    chosen_sampler = sampler_of(sampler, sampler_config, seed, several=objectives.several)
    check_storage(storage)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[optuna.study.StudyDirection[one.upper()] for one in objectives.directions],
        pruner=chosen_pruner,
        sampler=chosen_sampler,
        load_if_exists=load_if_exists,
    )
    _check_objectives(study, objectives)
    if seed is not None and (existing := len(study.get_trials(deepcopy=False))):
        # The unchanged seed would suggest the parameters of the first trials again.
        study.sampler = sampler_of(sampler, sampler_config, seed + existing, several=objectives.several)
    return study


def _check_objectives(study: optuna.Study, objectives: Objectives) -> None:
    directions = tuple(direction.name.lower() for direction in study.directions)
    if directions != objectives.directions:
        raise ValueError(
            f"Study {study.study_name!r} exists with the directions {', '.join(directions)}, got "
            f"{', '.join(objectives.directions)}. Directions cannot change; choose another study_name."
        )
    metrics = study.user_attrs.get(METRICS)
    if metrics is None:
        study.set_user_attr(METRICS, list(objectives.metrics))
    elif tuple(metrics) != objectives.metrics:
        raise ValueError(
            f"Study {study.study_name!r} exists with the metrics {', '.join(metrics)}, got "
            f"{', '.join(objectives.metrics)}. Metrics cannot change; choose another study_name."
        )


def trial_run_name(number: int) -> str:
    """Returns the name of a trial's run. Names count from 1, Optuna's trial numbers from 0."""
    return f"trial_{number + 1:04d}"


def sampler_of(
    given: object, config: Mapping[str, object] | None, seed: int | None, *, several: bool
) -> optuna.samplers.BaseSampler:
    """Returns the sampler described by the arguments of `OptunaRunner`.

    Args:
        given: a sampler, its name, a mapping with its name under "type", or None.
        config: its options; also its name under "type" if `given` is None.
        seed: makes the suggestions reproducible if trials run one after the other.
        several: True for several objectives, which have another default sampler.

    Raises:
        ValueError: the sampler does not exist, or does not accept an option.
    """
    if isinstance(given, optuna.samplers.BaseSampler):
        _check_no_config("sampler", config)
        if seed is not None:
            raise ValueError(
                f"seed={seed} cannot be combined with a sampler object; pass the seed to {given!r} itself"
            )
        return given
    name, options = _chosen("sampler", given, config, _SAMPLERS, "nsgaii" if several else "tpe")
    if seed is not None:
        if options.setdefault("seed", seed) != seed:
            raise ValueError(
                f"seed={seed} contradicts the seed {options['seed']!r} in sampler_config; pass only one"
            )
        if "seed" not in inspect.signature(_SAMPLERS[name]).parameters:
            raise ValueError(f"sampler {name!r} does not accept a seed, got seed={seed}; leave it out")
    return _built("sampler", _SAMPLERS[name], name, options)


def pruner_of(given: object, config: Mapping[str, object] | None) -> optuna.pruners.BasePruner:
    """Returns the pruner described by the arguments of `OptunaRunner`; None and "none" never prune.

    Raises:
        ValueError: the pruner does not exist, or does not accept an option.
    """
    if isinstance(given, optuna.pruners.BasePruner):
        _check_no_config("pruner", config)
        return given
    # To Optuna, None means its median pruner, which would surprise anyone who wrote "none" in a file.
    name, options = _chosen("pruner", given, config, _PRUNERS, "none")
    return _built("pruner", _PRUNERS[name], name, options)


def _check_no_config(kind: str, config: Mapping[str, object] | None) -> None:
    if config:
        raise ValueError(
            f"{kind}_config={dict(config)!r} requires the {kind} as a name, got an object; "
            "pass the options to the object itself"
        )


def _chosen(
    kind: str,
    given: object,
    config: Mapping[str, object] | None,
    known: Mapping[str, object],
    default: str,
) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = dict(given) if isinstance(given, Mapping) else dict(config or {})
    if isinstance(given, Mapping):
        _check_no_config(kind, config)
        given = None
    if "type" in options:
        if given is not None and given != options["type"]:
            raise ValueError(
                f"{kind}={given!r} contradicts the type {options['type']!r} in {kind}_config; pass only one"
            )
        given = options.pop("type")
    name = default if given is None else given
    plain = name.lower().replace("-", "_") if isinstance(name, str) else ""
    for candidate in (plain, plain.removesuffix(kind).replace("_", "")):
        if candidate in known:
            return candidate, options
    raise ValueError(f"{kind} must be one of {', '.join(known)} or an Optuna {kind}, got {name!r}")


def _built(kind: str, factory: Callable[..., T], name: str, options: Mapping[str, Any]) -> T:
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"invalid options for {kind} {name!r}: {dict(options)!r}: {error}") from error


def check_storage(storage: object) -> None:
    """Checks that a storage is not MLflow's database; changes nothing there.

    Args:
        storage: what the user passed. Only a database URL is checked; an Optuna storage has made its tables.

    Raises:
        ValueError: it is MLflow's database, or its path begins with ``~``.
    """
    if not isinstance(storage, str):
        return
    try:
        url = make_url(storage)
    except SQLAlchemyError:
        return  # Optuna says what it expects
    if _is_file(url) and str(url.database).startswith("~"):
        home = Path(os.path.expanduser(str(url.database)))  # noqa: PTH111 - Path.expanduser may raise
        raise ValueError(
            f"storage must name the complete path of its file, as ~ is not expanded in a database URL, got "
            f"{storage!r}. Write {url.set(database=str(home))}"
        )
    if _is_tracking_database(url) or _has_tables_of_mlflow(url):
        raise ValueError(
            f"storage must be a database of Optuna's own, got {url!r}, which is MLflow's: both keep the "
            f"version of their tables in a table alembic_version, and fail if they share it. {_remedy(url)}"
        )


def _remedy(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "Use another file, such as sqlite:///study.db"
    return "Create a second database on the same server, such as CREATE DATABASE optuna, and use its URL"


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database not in _MEMORY


def _is_tracking_database(url: URL) -> bool:
    """Returns whether runs are tracked in this database, even if it has no tables yet."""
    tracking = current_tracking_uri()
    if "://" not in tracking or tracking.startswith(("http:", "https:", "file:")):
        return False
    try:
        return _place(make_url(tracking)) == _place(url)
    except SQLAlchemyError:
        return False


def _place(url: URL) -> tuple[Any, ...]:
    """Returns what names a database, whichever driver and user are used."""
    if url.get_backend_name() == "sqlite":
        return ("sqlite", object() if url.database in _MEMORY else os.path.realpath(str(url.database)))
    return (url.get_backend_name(), url.host, url.port, url.database)


def _has_tables_of_mlflow(url: URL) -> bool:
    if url.get_backend_name() == "sqlite" and not (_is_file(url) and Path(str(url.database)).exists()):
        return False  # to look would create the file
    try:
        engine = sqlalchemy.create_engine(url)
    except (SQLAlchemyError, ImportError):
        return False  # Optuna names the missing driver
    try:
        return set(sqlalchemy.inspect(engine).get_table_names()) >= _TABLES_OF_MLFLOW
    except SQLAlchemyError:
        return False  # Optuna says why it cannot be reached
    finally:
        engine.dispose()
