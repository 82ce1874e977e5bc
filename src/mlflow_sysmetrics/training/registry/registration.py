"""Registers a model: checks all arguments, saves and logs it, creates a version, and then promotes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.faults import Cause
from mlflow_sysmetrics.mlflow_api.outcomes import cause_by_code
from mlflow_sysmetrics.training.registry import names
from mlflow_sysmetrics.training.registry.model_files import Source, link_to_version
from mlflow_sysmetrics.training.registry.model_logging import LoggedModel, log_model
from mlflow_sysmetrics.training.registry.promotion import apply_target, not_promoted
from mlflow_sysmetrics.training.registry.quiet import without_noise


@dataclass(frozen=True)
class _Entry:
    """What the registry is told about a version.

    Attributes:
        model_name: the registered model.
        tags: tags of the version.
        registered_tags: tags of the registered model.
        description: text for the version; None for none.
        wait_seconds: how long to wait until the registry has the version ready; None does not wait.
    """

    model_name: str
    tags: Mapping[str, str]
    registered_tags: Mapping[str, str]
    description: str | None
    wait_seconds: float | None


def register_model(  # noqa: PLR0917 - the order of mlflow's own calls: model, name, sample, then what describes it
    model: Any,
    model_name: str,
    sample_input: Any = None,
    stage: str | None = None,
    tags: Mapping[str, object] | None = None,
    description: str | None = None,
    *,
    alias: str | None = names.AUTO,
    archive_existing: bool = True,
    artifact_path: str = "model",
    signature: Any = None,
    input_example: Any = None,
    serialization_format: str = names.AUTO,
    run_id: str | None = None,
    await_registration_for: float | None = 300,
    registered_tags: Mapping[str, object] | None = None,
    **log_model_kwargs: Any,
) -> Any:
    """Logs a model to a run, registers it as a new version, and promotes that version.

    The model is left as it was (modes, device, weights, BatchNorm statistics), and so are the random states.

    Args:
        model: a `torch.nn.Module` or a scikit-learn estimator.
        model_name: the registered model, created if it does not exist.
        sample_input: one or more rows of input, from which signature and input example are derived: a tensor
            or array on any device, several by name or in the order of `forward`, or a data frame. The model
            serves batches of any size, whatever the number of rows.
        stage: "Staging", "Production", "Archived" or "None", in any case; None does not promote.
        tags: tags of the version; it is created with them.
        description: description of the version; it is created with it.
        alias: the alias to set, as in `promote`.
        archive_existing: archive the other versions in that stage, as in `promote`.
        artifact_path: the name of the model in its run.
        signature: MLflow's signature, instead of an inferred one; False for none.
        input_example: an example, instead of the first rows of the sample; False for none.
        serialization_format: "auto" is "pickle" for PyTorch and "cloudpickle" for scikit-learn, as in MLflow
            2; MLflow 3 also supports "pt2" and "skops".
        run_id: the run to log to; by default the active run.
        await_registration_for: how many seconds to wait until the registry has the version ready; None does
            not wait.
        registered_tags: tags of the registered model.
        **log_model_kwargs: arguments of `save_model` in MLflow's module for the model, such as
            `pip_requirements` and `code_paths`.

    Returns:
        The version after the promotion, MLflow's `ModelVersion`; its number is in ``version``. It prints as
        one line with name, version and stage.

    Raises:
        NoActiveRunError: there is no active run and no `run_id`.
        TypeError: the model is of another library, or an argument is unknown.
        ValueError: a name, stage, alias, tag, format or run is invalid, or the model has no weights yet.
        PromotionError: the version is registered but could not be promoted.
        Exception: what MLflow raises if the model cannot be saved, logged or registered.
    """
    target = names.checked_target(stage, alias, archive_existing=archive_existing)
    entry = _Entry(
        names.checked_model_name(model_name),
        names.checked_tags(tags),
        names.checked_tags(registered_tags, "registered_tags"),
        _checked_text(description),
        _checked_wait(await_registration_for),
    )
    logged = log_model(
        model,
        sample_input,
        by="register_model",
        artifact_path=artifact_path,
        signature=signature,
        input_example=input_example,
        serialization_format=serialization_format,
        run_id=run_id,
        options=log_model_kwargs,
    )
    from mlflow_sysmetrics.training.registry.versions import one_line

    version = _create_version(logged, entry)
    return one_line(_promoted(logged.client, logged.source, entry, version, target))


def _create_version(logged: LoggedModel, entry: _Entry) -> str:
    """Creates a version that has its tags and description from the start; returns its number."""
    from mlflow.exceptions import MlflowException

    client, source = logged.client, logged.source
    try:
        client.create_registered_model(entry.model_name, tags=dict(entry.registered_tags))
    except MlflowException as error:
        if cause_by_code(error) is not Cause.EXISTS:
            raise
        for key, value in entry.registered_tags.items():
            client.set_registered_model_tag(entry.model_name, key, value)
    of_model = {} if source.model_id is None else {"model_id": source.model_id}
    with without_noise():
        version = client.create_model_version(
            entry.model_name,
            source.uri,
            run_id=logged.run_id,
            tags=dict(entry.tags),
            description=entry.description,
            await_creation_for=entry.wait_seconds,
            **of_model,
        )
    return str(version.version)


def _promoted(client: Any, source: Source, entry: _Entry, version: str, target: names.Target) -> Any:
    """Promotes a new version and returns it as it is afterwards."""
    import mlflow

    try:
        link_to_version(client, source, entry.model_name, version)
        if not target.is_none:
            apply_target(client, entry.model_name, version, target)
        return client.get_model_version(entry.model_name, version)
    except Exception as error:  # MLflow's, its store's or the network's
        reraise_interruption(error)
        if target.is_none:
            raise
        failure = not_promoted(entry.model_name, version, target, error, mlflow.get_tracking_uri())
    raise failure  # outside the handler: MLflow's exception, which it would carry, may quote a token


def _checked_wait(seconds: float | None) -> float | None:
    if seconds is not None and (not isinstance(seconds, (int, float)) or isinstance(seconds, bool)):
        raise ValueError(f"await_registration_for must be a number of seconds or None, got {seconds!r}")
    return seconds


def _checked_text(description: str | None) -> str | None:
    if description is not None and not isinstance(description, str):
        raise ValueError(f"description must be a string or None, got {description!r}")
    return description
