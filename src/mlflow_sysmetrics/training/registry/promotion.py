"""Promotes a version: sets its stage and alias, and archives the versions that were there before."""

from __future__ import annotations

from typing import Any

from mlflow_sysmetrics.errors import PromotionError
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.training.registry.names import (
    ALIAS_OF_STAGE,
    AUTO,
    Target,
    checked_model_name,
    checked_target,
    checked_version,
)
from mlflow_sysmetrics.training.registry.stages_and_aliases import (
    Stages,
    number_with_alias,
    put_into_stage,
    remove_alias,
)

# Another round is needed only if another program promoted a version during the last one.
_MOST_ROUNDS = 20


def promote(
    model_name: str,
    version: str | int,
    stage: str | None = None,
    alias: str | None = AUTO,
    archive_existing: bool = True,  # noqa: FBT001, FBT002 - positional in MLflow's own call, too
) -> Any:
    """Puts a version of a registered model into a stage and points the alias of that stage to it.

    Repeating the call changes nothing, so it also completes a promotion that was interrupted.

    Args:
        model_name: the registered model.
        version: the number of the version.
        stage: "Staging", "Production", "Archived" or "None", in any case. "Archived" and "None" remove the
            aliases ``production`` and ``staging`` from the version. If the registry has no stages, the tag
            ``mlflow_sysmetrics.stage`` stands in for them.
        alias: "auto" sets ``production`` or ``staging`` according to the stage; another name sets that alias;
            None sets none.
        archive_existing: archive the other versions in Staging or Production.

    Returns:
        The version after the promotion.

    Raises:
        ValueError: the stage does not exist, the alias is invalid, or neither is given.
        MlflowException: the version does not exist, or the registry cannot be reached.
    """
    target = checked_target(stage, alias, archive_existing=archive_existing)
    if target.stage is None and target.alias is None:
        raise ValueError("stage and alias must not both be None; give a stage, an alias, or both")
    name, number = checked_model_name(model_name), checked_version(version)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    client.get_model_version(name, number)  # not every registry checks the version when an alias is set
    apply_target(client, name, number, target)
    from mlflow_sysmetrics.training.registry.versions import one_line

    return one_line(client.get_model_version(name, number))


def apply_target(client: Any, model_name: str, version: str, target: Target) -> None:
    """Promotes a version.

    The stage is set first: until the alias moves, a service that loads by alias gets the previous version.
    """
    stages = None
    if target.stage is not None:
        stages = put_into_stage(
            client, model_name, version, target.stage, archive_existing=target.archive_existing
        )
    if target.alias is not None:
        _set_alias(client, model_name, target.alias, version)
    if stages is None or target.stage is None:
        return
    for stage, alias in ALIAS_OF_STAGE.items():
        if stage != target.stage and alias != target.alias:
            remove_alias(client, model_name, alias, version)
    own = ALIAS_OF_STAGE.get(target.stage)
    if target.archive_existing and own is not None and own == target.alias:
        _settle(client, model_name, target.stage, stages)


def not_promoted(
    model_name: str, version: str, target: Target, reason: Exception, tracking_uri: str
) -> PromotionError:
    """Returns the error for a version that is registered but not promoted; says how to complete it."""
    arguments = [repr(model_name), version]
    if target.stage is not None:
        arguments.append(f"stage={target.stage!r}")
    if target.alias != ALIAS_OF_STAGE.get(target.stage or ""):
        arguments.append(f"alias={target.alias!r}")
    if not target.archive_existing:
        arguments.append("archive_existing=False")
    return PromotionError(
        f"Version {version} of model {model_name!r} is registered, but was not promoted to {target} "
        f"({fault_of_error(reason, tracking_uri).reason}). "
        f"Complete it with mlflow_sysmetrics.promote({', '.join(arguments)}).",
        model_name=model_name,
        version=version,
    )


def _set_alias(client: Any, model_name: str, alias: str, version: str) -> None:
    """Points an alias to a version.

    The registry looks the alias up and then inserts or updates it. If two programs set a new alias at the
    same moment, one of them is refused; by its second attempt the alias exists.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.set_registered_model_alias(model_name, alias, version)
    except MlflowException:
        if number_with_alias(client, model_name, alias) is None:
            raise
        client.set_registered_model_alias(model_name, alias, version)


def _settle(client: Any, model_name: str, stage: str, stages: Stages) -> None:
    """Leaves one version in a stage if several programs promoted versions at the same time.

    Each archives the versions that it found in the stage, and may miss the version of another program. The
    alias points to only one version, so it decides. A program that changes something looks again; so the last
    change is followed by a look that finds nothing to change.
    """
    alias = ALIAS_OF_STAGE[stage]
    for _ in range(_MOST_ROUNDS):
        chosen = number_with_alias(client, model_name, alias)
        if chosen is None or stages.versions_in(stage) == {chosen}:
            return
        stages.put(chosen, stage, archive_existing=True)
