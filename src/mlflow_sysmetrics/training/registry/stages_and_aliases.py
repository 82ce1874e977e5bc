"""Stages and aliases of model versions. Where a registry has no stages, a tag stands in for them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any, Protocol

from mlflow_sysmetrics.mlflow_api.outcomes import is_not_found, lacks_call
from mlflow_sysmetrics.training.registry.names import ALIAS_OF_STAGE, ARCHIVED, NONE

STAGE_TAG = "mlflow_sysmetrics.stage"
_log = logging.getLogger("mlflow_sysmetrics")


class Stages(Protocol):
    """The stages of one model's versions."""

    def put(self, version: str, stage: str, *, archive_existing: bool) -> None:
        """Puts a version into a stage, and archives the other versions there if requested."""

    def versions_in(self, stage: str) -> set[str]:
        """Returns the versions that are in a stage."""


class RegistryStages:
    """The stages of the registry itself.

    MLflow deprecated them in 2.9 and warns at each call. Using them is the choice of this package, not of the
    caller, and `warnings.catch_warnings` would silence all threads; so the function inside the deprecation
    wrapper is called.
    """

    def __init__(self, client: Any, model_name: str) -> None:
        self._client = client
        self._name = model_name

    def put(self, version: str, stage: str, *, archive_existing: bool) -> None:
        """Puts a version into a stage, and archives the other versions there if requested."""
        change = inspect.unwrap(type(self._client).transition_model_version_stage)
        change(
            self._client,
            self._name,
            version,
            stage,
            # The registry accepts this only for the stages that versions are served from.
            archive_existing_versions=archive_existing and stage in ALIAS_OF_STAGE,
        )

    def versions_in(self, stage: str) -> set[str]:
        """Returns the versions that are in a stage."""
        versions = versions_of(self._client, self._name)
        return {str(one.version) for one in versions if one.current_stage == stage}


class TagStages:
    """Stages kept as a tag, for registries without stages: Unity Catalog, and MLflow once it removes them."""

    def __init__(self, client: Any, model_name: str) -> None:
        self._client = client
        self._name = model_name

    def put(self, version: str, stage: str, *, archive_existing: bool) -> None:
        """Puts a version into a stage, and archives the other versions there if requested."""
        others = self.versions_in(stage) - {version} if archive_existing and stage in ALIAS_OF_STAGE else ()
        self._client.set_model_version_tag(self._name, version, STAGE_TAG, stage)
        for other in others:
            self._client.set_model_version_tag(self._name, other, STAGE_TAG, ARCHIVED)

    def versions_in(self, stage: str) -> set[str]:
        """Returns the versions that are in a stage."""
        versions = versions_of(self._client, self._name)
        return {str(one.version) for one in versions if one.tags.get(STAGE_TAG, NONE) == stage}


def put_into_stage(
    client: Any, model_name: str, version: str, stage: str, *, archive_existing: bool
) -> Stages:
    """Puts a version into a stage and returns the kind of stages that the registry has."""
    if hasattr(client, "transition_model_version_stage"):
        stages: Stages = RegistryStages(client, model_name)
        try:
            stages.put(version, stage, archive_existing=archive_existing)
        except Exception as error:  # MLflow's, a store's or a plugin's
            if not _has_no_stages(error):
                raise
        else:
            return stages
    _log.info(
        "this registry has no stages: version %s of model %r gets the tag %s=%s instead",
        version,
        model_name,
        STAGE_TAG,
        stage,
    )
    stages = TagStages(client, model_name)
    stages.put(version, stage, archive_existing=archive_existing)
    return stages


def stage_of(version: Any) -> str:
    """Returns the stage of a version: the registry's own, or that of the tag if the registry has none."""
    own = getattr(version, "current_stage", None)
    return str(own) if own not in {None, "", NONE} else str(version.tags.get(STAGE_TAG, NONE))


def versions_of(client: Any, model_name: str) -> Iterator[Any]:
    """Yields all versions of a model."""
    quote = '"' if "'" in model_name else "'"
    token = None
    while True:
        page = client.search_model_versions(f"name={quote}{model_name}{quote}", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def version_with_alias(client: Any, model_name: str, alias: str) -> Any | None:
    """Returns the version that an alias points to; None if the alias or the model does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model_name, alias)
    except MlflowException as error:
        if not is_not_found(error):
            raise
        return None


def number_with_alias(client: Any, model_name: str, alias: str) -> str | None:
    """Returns the number of the version that an alias points to; None if there is none."""
    version = version_with_alias(client, model_name, alias)
    return None if version is None else str(version.version)


def remove_alias(client: Any, model_name: str, alias: str, version: str) -> None:
    """Removes an alias if it points to this version."""
    if number_with_alias(client, model_name, alias) == version:
        client.delete_registered_model_alias(model_name, alias)


def _has_no_stages(error: Exception) -> bool:
    """Returns whether a registry refuses stages in general, and not only this version or this caller."""
    if lacks_call(error):
        return True
    # Unity Catalog has no code for it: "Method 'transition_model_version_stage' is unsupported for ..."
    return "transition_model_version_stage" in str(error) and "unsupported" in str(error)
