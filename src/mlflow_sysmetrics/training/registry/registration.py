"""Registering a model: all is checked, then saved, then logged, then described, and only then promoted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.training.registry import names, promotion
from mlflow_sysmetrics.training.registry.flavors import checked_format, checked_options, flavor_of
from mlflow_sysmetrics.training.registry.quiet import without_noise
from mlflow_sysmetrics.training.registry.saving import check_exportable, interface_of, save
from mlflow_sysmetrics.training.registry.upload import Source, link, put_into_run

_ALREADY_THERE = {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}
_NO_RUN = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True)
class _Entry:
    """What the registry is told of a version.

    Attributes:
        model_name: of the registered model.
        tags: of the version.
        registered_tags: of the model, whatever the version.
        description: of the version; None is none.
        wait_seconds: how long the registry may take to make the version ready; None does not wait.
    """

    model_name: str
    tags: Mapping[str, str]
    registered_tags: Mapping[str, str]
    description: str | None
    wait_seconds: float | None


def register_model(  # noqa: PLR0917 - each is something else that is said of a model
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
    serialization_format: str = "auto",
    run_id: str | None = None,
    await_registration_for: float | None = 300,
    registered_tags: Mapping[str, object] | None = None,
    **log_model_kwargs: Any,
) -> Any:
    """Logs a model to a run, registers it as a new version, and promotes that.

    The model is left as it is: modes, device, weights and BatchNorm's counts; so are the random numbers.

    Args:
        model: a `torch.nn.Module` or a scikit-learn estimator.
        model_name: of the registered model, which is made if there is none.
        sample_input: what the model takes, one row or more, from which signature and input example come: a
            tensor or array on any device, several by name or in the order of `forward`, a data frame. However
            many rows it has, the model serves batches of any size.
        stage: "Staging", "Production", "Archived" or "None", in any case; None does not promote.
        tags: of the version, which is made with them.
        description: of the version, which is made with it.
        alias: as of `promote`, and so is the next.
        archive_existing: as above.
        artifact_path: name of the model in its run.
        signature: MLflow's, instead of one that is inferred; False is none.
        input_example: instead of the first rows of the sample; False is none.
        serialization_format: "auto" is "pickle" for PyTorch and "cloudpickle" for scikit-learn, as on MLflow
            2; on MLflow 3 also "pt2" and "skops".
        run_id: the run to log to; by default the active one.
        await_registration_for: longest wait in seconds until the registry has the version ready; None is no
            wait.
        registered_tags: of the registered model itself.
        **log_model_kwargs: of `save_model` in MLflow's module for such models, as `pip_requirements`,
            `code_paths`.

    Returns:
        The version as it is then, with its number in ``version``.

    Raises:
        NoActiveRunError: there is no active run and no `run_id`.
        TypeError: it is a model of another library, or there is no such argument.
        ValueError: a name, stage, alias, tag, format or run cannot be; or the model has no weights yet.
        PromotionError: the version is registered, and could not be promoted.
        Exception: what MLflow raises where the model cannot be saved, logged or registered.
    """
    target = names.checked_target(stage, alias, archive_existing=archive_existing)
    entry = _Entry(
        names.checked_model_name(model_name),
        names.checked_tags(tags),
        names.checked_tags(registered_tags, "registered_tags"),
        _checked_text(description),
        _checked_wait(await_registration_for),
    )
    if not isinstance(artifact_path, str) or not artifact_path.strip("/ "):
        raise ValueError(
            f"artifact_path is {artifact_path!r}; it names the model in its run, such as 'model'"
        )
    flavor = flavor_of(model)
    checked_options(flavor, log_model_kwargs)
    chosen = checked_format(flavor, serialization_format)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    flavor.check(model)
    run = _run(client, run_id)
    with tempfile.TemporaryDirectory(prefix="mlflow-sysmetrics-") as folder:
        interface = interface_of(flavor, model, sample_input, signature, input_example, log_model_kwargs)
        check_exportable(interface, chosen)
        saved = save(flavor, model, Path(folder, "model"), interface, chosen, log_model_kwargs)
        source = put_into_run(client, run, saved, artifact_path)
    version = _registered(client, run, source, entry)
    return _promoted(client, source, entry, version, target)


def _run(client: Any, run_id: str | None) -> Any:
    """Returns the run to log to."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is not None and not isinstance(run_id, str):
        raise ValueError(f"run_id is {run_id!r}; it is the text in run.info.run_id")
    if run_id is None:
        active = mlflow.active_run()
        if active is None:
            raise NoActiveRunError(
                "register_model logs the model to a run, and there is none: call it inside "
                "`with mlflow.start_run():`, or name a run with run_id=..."
            )
        run_id = active.info.run_id
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in _NO_RUN:
            raise ValueError(f"there is no run {run_id!r} on the tracking server that is set") from error
        raise
    if run.info.lifecycle_stage == "deleted":
        raise ValueError(f"the run {run_id!r} is deleted; restore it, or name another with run_id=...")
    return run


def _registered(client: Any, run: Any, source: Source, entry: _Entry) -> str:
    """Makes a version that has its tags and description from the first moment; returns its number."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(entry.model_name, tags=dict(entry.registered_tags))
    except MlflowException as error:
        if error.error_code not in _ALREADY_THERE:
            raise
        for key, value in entry.registered_tags.items():
            client.set_registered_model_tag(entry.model_name, key, value)
    of_model = {} if source.model_id is None else {"model_id": source.model_id}
    with without_noise():
        version = client.create_model_version(
            entry.model_name,
            source.uri,
            run_id=run.info.run_id,
            tags=dict(entry.tags),
            description=entry.description,
            await_creation_for=entry.wait_seconds,
            **of_model,
        )
    return str(version.version)


def _promoted(client: Any, source: Source, entry: _Entry, version: str, target: names.Target) -> Any:
    """Promotes a version that was made and returns it as it is then."""
    import mlflow

    try:
        link(client, source, entry.model_name, version)
        if not target.is_none:
            promotion.carry_out(client, entry.model_name, version, target)
        return client.get_model_version(entry.model_name, version)
    except Exception as error:  # MLflow's, its store's or the network's
        if target.is_none:
            raise
        raise promotion.not_promoted(
            entry.model_name, version, target, error, mlflow.get_tracking_uri()
        ) from error


def _checked_wait(seconds: float | None) -> float | None:
    if seconds is not None and (not isinstance(seconds, (int, float)) or isinstance(seconds, bool)):
        raise ValueError(f"await_registration_for is {seconds!r}; it is a number of seconds, or None")
    return seconds


def _checked_text(description: str | None) -> str | None:
    if description is not None and not isinstance(description, str):
        raise ValueError(f"the description is {description!r}; it is text")
    return description
