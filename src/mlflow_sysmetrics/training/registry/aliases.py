"""Aliases of versions, which every registry of MLflow 2.3 and newer has."""

from __future__ import annotations

from typing import Any

# An alias that is not there is, to MLflow, a wrong parameter; a model that is not there does not exist.
_NOT_THERE = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}


def version_with_alias(client: Any, model_name: str, alias: str) -> Any | None:
    """Returns the version that an alias points at; None where there is none, or no such model."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model_name, alias)
    except MlflowException as error:
        if error.error_code not in _NOT_THERE:
            raise
        return None


def points_at(client: Any, model_name: str, alias: str) -> str | None:
    """Returns the number of the version that an alias points at; None where it points at none."""
    found = version_with_alias(client, model_name, alias)
    return None if found is None else str(found.version)


def take_from(client: Any, model_name: str, alias: str, version: str) -> None:
    """Removes an alias where it points at this version."""
    if points_at(client, model_name, alias) == version:
        client.delete_registered_model_alias(model_name, alias)
