"""A model registry in memory with MLflow's rules for stages and aliases; tests act between its calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class Page(list[Any]):
    """The last page of results."""

    token = None


def deprecated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Warns at each call, like MLflow's decorator of that name."""

    @wraps(function)
    def warning(*given: Any, **named: Any) -> Any:
        warnings.warn("stages are deprecated", FutureWarning, stacklevel=2)
        return function(*given, **named)

    return warning


class RegistryInMemory:
    """One registered model.

    Attributes:
        stages: the stage of each version, by number.
        aliases: the version that each alias points to.
        tags: the tags of each version, by number.
        between: pairs of a call's name and what another program does before that call; each happens once.
    """

    def __init__(self, versions: int) -> None:
        self.stages = {str(number): "None" for number in range(1, versions + 1)}
        self.aliases: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {number: {} for number in self.stages}
        self.between: list[tuple[str, Callable[[], None]]] = []

    def _others(self, call: str) -> None:
        if self.between and self.between[0][0] == call:
            self.between.pop(0)[1]()

    @deprecated
    def transition_model_version_stage(
        self,
        name: str,
        version: str,
        stage: str,
        archive_existing_versions: bool = False,
    ) -> None:
        self._others("transition")
        if archive_existing_versions:
            for other, its in self.stages.items():
                if its == stage and other != version:
                    self.stages[other] = "Archived"
        self.stages[version] = stage

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._others("alias")
        self.aliases[alias] = version

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        if alias not in self.aliases:
            raise MlflowException(f"alias {alias} not found", INVALID_PARAMETER_VALUE)
        return self.get_model_version(name, self.aliases[alias])

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        del self.aliases[alias]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags[version][key] = value

    def get_model_version(self, name: str, version: str) -> Any:
        return SimpleNamespace(
            name=name, version=int(version), current_stage=self.stages[version], tags=self.tags[version]
        )

    def search_model_versions(self, filter_string: str, page_token: str | None = None) -> Page:
        return Page(self.get_model_version("", version) for version in self.stages)


class RegistryWithoutStages(RegistryInMemory):
    """One registered model in a registry that refuses stages with Unity Catalog's message."""

    def transition_model_version_stage(self, *given: Any, **named: Any) -> None:
        raise MlflowException(
            "Method 'transition_model_version_stage' is unsupported for models in the Unity Catalog. We recommend "
            "using aliases instead of stages for more flexible model deployment management."
        )
