"""Finding and loading the version that is served: by alias, else by stage."""

from __future__ import annotations

from typing import Any

from mlflow_sysmetrics.training.registry.aliases import version_with_alias
from mlflow_sysmetrics.training.registry.names import ALIAS_OF_STAGE, STAGES, checked_model_name
from mlflow_sysmetrics.training.registry.quiet import same_root_logger
from mlflow_sysmetrics.training.registry.stages import STAGE_TAG, versions_of


def find_version(model_name: str, alias_or_stage: str = "Production") -> Any:
    """Returns the version that an alias points at, else the newest in the stage of that name.

    It costs one or two requests and loads nothing, so a service may ask often whether there is another.

    Args:
        model_name: the registered model.
        alias_or_stage: an alias, or a stage in any case; a stage's own alias goes before the stage.

    Raises:
        LookupError: there is none.
        ValueError: a model, an alias or a stage cannot be called so.
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    name = checked_model_name(model_name)
    if not isinstance(alias_or_stage, str):
        raise ValueError(
            f"{alias_or_stage!r} is no alias and no stage; mlflow.pyfunc.load_model loads by number"
        )
    stage = next((one for one in STAGES if one.lower() == alias_or_stage.lower()), None)
    alias = ALIAS_OF_STAGE.get(stage or "") or (alias_or_stage if stage is None else None)
    found = version_with_alias(client, name, alias) if alias else None
    if found is None and stage is not None:
        in_stage = [one for one in versions_of(client, name) if _stage_of(one) == stage]
        found = max(in_stage, key=lambda one: int(one.version), default=None)
    if found is None:
        wanted = " and ".join(
            one for one in (f"alias {alias!r}" if alias else "", f"stage {stage}" if stage else "") if one
        )
        raise LookupError(
            f"model {name!r} has no version with {wanted}; "
            f"give it one with mlflow_sysmetrics.promote({name!r}, version, ...)"
        )
    return found


def load_model(model_name: str, alias_or_stage: str = "Production") -> Any:
    """Loads a version as `mlflow.pyfunc` does: whatever its library, it has ``predict``.

    Args:
        model_name: as of `find_version`, and so is the other.
        alias_or_stage: as above.

    Raises:
        LookupError: there is no such version.
        Exception: what MLflow raises where it cannot be loaded.
    """
    import mlflow.pyfunc

    found = find_version(model_name, alias_or_stage)
    # By number, not by stage: MLflow warns of stages at each load, and the alias may have moved on since.
    with same_root_logger():
        return mlflow.pyfunc.load_model(f"models:/{found.name}/{found.version}")


def _stage_of(version: Any) -> str:
    """Returns the stage of a version: the registry's own, or the tag where the registry has none."""
    own = getattr(version, "current_stage", None)
    return str(own) if own not in {None, "", "None"} else str(version.tags.get(STAGE_TAG, "None"))
