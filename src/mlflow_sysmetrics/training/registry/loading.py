"""Finds and loads the version that is served: by alias, otherwise by stage."""

from __future__ import annotations

from typing import Any

from mlflow_sysmetrics.training.registry.names import ALIAS_OF_STAGE, STAGES, checked_model_name
from mlflow_sysmetrics.training.registry.quiet import same_root_logger
from mlflow_sysmetrics.training.registry.stages_and_aliases import stage_of, version_with_alias, versions_of


def find_version(model_name: str, alias_or_stage: str = "Production") -> Any:
    """Returns the version that an alias points to, otherwise the newest version in the stage of that name.

    This makes one or two requests and loads no model, so a service can poll it for new versions.

    Args:
        model_name: the registered model.
        alias_or_stage: an alias, or a stage in any case. The alias of a stage takes precedence over the
            stage.

    Raises:
        LookupError: there is no such version.
        ValueError: the model name, alias or stage is invalid.
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    name = checked_model_name(model_name)
    if not isinstance(alias_or_stage, str):
        raise ValueError(
            f"alias_or_stage must be a string, got {alias_or_stage!r}; "
            "to load a version by number use mlflow.pyfunc.load_model"
        )
    stage = next((one for one in STAGES if one.lower() == alias_or_stage.lower()), None)
    alias = ALIAS_OF_STAGE.get(stage or "") or (alias_or_stage if stage is None else None)
    version = version_with_alias(client, name, alias) if alias else None
    if version is None and stage is not None:
        in_stage = [one for one in versions_of(client, name) if stage_of(one) == stage]
        version = max(in_stage, key=lambda one: int(one.version), default=None)
    if version is None:
        wanted = " and ".join(
            one for one in (f"alias {alias!r}" if alias else "", f"stage {stage}" if stage else "") if one
        )
        raise LookupError(
            f"model {name!r} has no version with {wanted}; "
            f"promote one with mlflow_sysmetrics.promote({name!r}, version, ...)"
        )
    return version


def load_model(model_name: str, alias_or_stage: str = "Production") -> Any:
    """Loads a version with `mlflow.pyfunc`, so that it has ``predict`` whatever its library.

    Args:
        model_name: the registered model.
        alias_or_stage: an alias, or a stage in any case, as in `find_version`.

    Raises:
        LookupError: there is no such version.
        ValueError: the model name, alias or stage is invalid.
        Exception: what MLflow raises if the model cannot be loaded.
    """
    import mlflow.pyfunc

    version = find_version(model_name, alias_or_stage)
    # By number: MLflow warns about stages at each load, and the alias may have moved in the meantime.
    with same_root_logger():
        return mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
