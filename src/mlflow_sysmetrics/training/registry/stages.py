"""Stages of versions: the registry's own, or a tag where the registry has none."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any, Protocol

from mlflow_sysmetrics.training.registry.names import ALIAS_OF_STAGE, ARCHIVED, NONE

STAGE_TAG = "mlflow_sysmetrics.stage"
_log = logging.getLogger("mlflow_sysmetrics")
# What a server answers that has no such call, or no longer.
_NO_SUCH_CALL = {"ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED"}


class Stages(Protocol):
    """Knows which versions of a model are in a stage, and puts them there."""

    def put(self, version: str, stage: str, *, archive_existing: bool) -> None:
        """Puts a version into a stage; archives the others there on request."""

    def versions_in(self, stage: str) -> set[str]:
        """Returns the versions that are in a stage."""


class RegistryStages:
    """The stages of the registry itself.

    MLflow has deprecated them since 2.9 and warns at each call. The warning is about the choice of this
    package, and `warnings.catch_warnings` would silence all threads, so what the deprecation wraps is called.
    """

    def __init__(self, client: Any, model_name: str) -> None:
        self._client = client
        self._name = model_name

    def put(self, version: str, stage: str, *, archive_existing: bool) -> None:
        """Puts a version into a stage; archives the others there on request."""
        change = inspect.unwrap(type(self._client).transition_model_version_stage)
        change(
            self._client,
            self._name,
            version,
            stage,
            # The registry refuses to archive what is not served from.
            archive_existing_versions=archive_existing and stage in ALIAS_OF_STAGE,
        )

    def versions_in(self, stage: str) -> set[str]:
        """Returns the versions that are in a stage."""
        found = versions_of(self._client, self._name)
        return {str(one.version) for one in found if one.current_stage == stage}


class TagStages:
    """Stages kept as a tag, for registries that have none: Unity Catalog, and MLflow when it drops them."""

    def __init__(self, client: Any, model_name: str) -> None:
        self._client = client
        self._name = model_name

    def put(self, version: str, stage: str, *, archive_existing: bool) -> None:
        """Puts a version into a stage; archives the others there on request."""
        others = self.versions_in(stage) - {version} if archive_existing and stage in ALIAS_OF_STAGE else ()
        self._client.set_model_version_tag(self._name, version, STAGE_TAG, stage)
        for other in others:
            self._client.set_model_version_tag(self._name, other, STAGE_TAG, ARCHIVED)

    def versions_in(self, stage: str) -> set[str]:
        """Returns the versions that are in a stage."""
        found = versions_of(self._client, self._name)
        return {str(one.version) for one in found if one.tags.get(STAGE_TAG, NONE) == stage}


def enter(client: Any, model_name: str, version: str, stage: str, *, archive_existing: bool) -> Stages:
    """Puts a version into a stage and returns the stages that the registry turned out to have."""
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
        "this registry has no stages: version %s of model %r is marked with the tag %s=%s instead",
        version,
        model_name,
        STAGE_TAG,
        stage,
    )
    stages = TagStages(client, model_name)
    stages.put(version, stage, archive_existing=archive_existing)
    return stages


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


def _has_no_stages(error: Exception) -> bool:
    """Returns whether a registry refuses stages as such, and not this version or this caller."""
    if isinstance(error, NotImplementedError) or getattr(error, "error_code", None) in _NO_SUCH_CALL:
        return True
    # Unity Catalog's has no code for it: "Method 'transition_model_version_stage' is unsupported for ..."
    return "transition_model_version_stage" in str(error) and "unsupported" in str(error)
