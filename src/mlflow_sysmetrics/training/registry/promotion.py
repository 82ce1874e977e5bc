"""Promoting a version: its stage, its alias, and the versions that were there before."""

from __future__ import annotations

from typing import Any

from mlflow_sysmetrics.errors import PromotionError
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.training.registry.aliases import points_at, take_from
from mlflow_sysmetrics.training.registry.names import (
    ALIAS_OF_STAGE,
    AUTO,
    Target,
    checked_model_name,
    checked_target,
    checked_version,
)
from mlflow_sysmetrics.training.registry.stages import Stages, enter

# Each round ends unless somebody else has promoted another version within it.
_ROUNDS = 20


def promote(
    model_name: str,
    version: str | int,
    stage: str | None = None,
    alias: str | None = AUTO,
    archive_existing: bool = True,  # noqa: FBT001, FBT002 - as MLflow's own
) -> Any:
    """Puts a version of a registered model into a stage and points the alias of that stage at it.

    Doing it again changes nothing, so it also finishes what was interrupted.

    Args:
        model_name: the registered model.
        version: its number.
        stage: "Staging", "Production", "Archived" or "None", in any case. "Archived" and "None" take the
            aliases ``production`` and ``staging`` from the version. Where the registry has no stages, the tag
            ``mlflow_sysmetrics.stage`` keeps it.
        alias: "auto" is ``production`` or ``staging``, after the stage; a name is that alias; None is none.
        archive_existing: whether versions that were in Staging or Production before are archived.

    Returns:
        The version as it is now.

    Raises:
        ValueError: there is no such stage, or the alias may not be called so, or neither is given.
        MlflowException: there is no such version, or the registry cannot be reached.
    """
    target = checked_target(stage, alias, archive_existing=archive_existing)
    if target.stage is None and target.alias is None:
        raise ValueError("there is nothing to promote to; give a stage, an alias, or both")
    name, number = checked_model_name(model_name), checked_version(version)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    client.get_model_version(name, number)  # before an alias is set: not all registries ask for the version
    carry_out(client, name, number, target)
    return client.get_model_version(name, number)


def carry_out(client: Any, model_name: str, version: str, target: Target) -> None:
    """Promotes a version.

    The stage comes first: until the alias moves, whoever loads by alias has the version from before.
    """
    stages = None
    if target.stage is not None:
        stages = enter(client, model_name, version, target.stage, archive_existing=target.archive_existing)
    if target.alias is not None:
        _point(client, model_name, target.alias, version)
    if stages is None or target.stage is None:
        return
    for stage, alias in ALIAS_OF_STAGE.items():
        if stage != target.stage and alias != target.alias:
            take_from(client, model_name, alias, version)
    own = ALIAS_OF_STAGE.get(target.stage)
    if target.archive_existing and own is not None and own == target.alias:
        _settle(client, model_name, target.stage, stages)


def not_promoted(
    model_name: str, version: str, target: Target, reason: Exception, uri: str
) -> PromotionError:
    """Returns the error of a version that is registered and was not promoted; says how to finish."""
    arguments = [repr(model_name), version]
    if target.stage is not None:
        arguments.append(f"stage={target.stage!r}")
    if target.alias != ALIAS_OF_STAGE.get(target.stage or ""):
        arguments.append(f"alias={target.alias!r}")
    if not target.archive_existing:
        arguments.append("archive_existing=False")
    return PromotionError(
        f"Version {version} of model {model_name!r} is registered, but was not promoted to {target}: "
        f"{type(reason).__name__}: {cleaned(str(reason), uri)} "
        f"Finish with mlflow_sysmetrics.promote({', '.join(arguments)}).",
        model_name=model_name,
        version=version,
    )


def _point(client: Any, model_name: str, alias: str, version: str) -> None:
    """Points an alias at a version.

    The registry looks whether there is one and then inserts or updates; of two programs that do so for the
    first time at the same moment one is refused, and finds the alias there when it tries again.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.set_registered_model_alias(model_name, alias, version)
    except MlflowException:
        if points_at(client, model_name, alias) is None:
            raise
        client.set_registered_model_alias(model_name, alias, version)


def _settle(client: Any, model_name: str, stage: str, stages: Stages) -> None:
    """Leaves one version in a stage, when several programs have promoted at the same time.

    Each archives what it found in the stage, which may miss the version of another. The alias can only point
    at one, so it decides. Whoever changes something looks again; so the last change is followed by a look.
    """
    alias = ALIAS_OF_STAGE[stage]
    for _ in range(_ROUNDS):
        chosen = points_at(client, model_name, alias)
        if chosen is None or stages.versions_in(stage) == {chosen}:
            return
        stages.put(chosen, stage, archive_existing=True)
