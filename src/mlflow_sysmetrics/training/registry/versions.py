"""MLflow's version of a registered model, which prints as one line. Imports MLflow."""

from __future__ import annotations

import copy
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from mlflow_sysmetrics.training.registry.stages_and_aliases import stage_of


class RegisteredVersion(ModelVersion):  # type: ignore[misc] # MLflow has no types here
    """A version of a registered model: all of MLflow's attributes, printed as name, version and stage."""

    def __str__(self) -> str:
        aliases = getattr(self, "aliases", None) or ()
        named = f", alias {', '.join(aliases)}" if aliases else ""
        return f"{self.name}, version {self.version}, stage {stage_of(self)}{named}"

    __repr__ = __str__


def one_line(version: Any) -> Any:
    """Returns MLflow's version as a `RegisteredVersion`; an object of a store's own class stays as it is."""
    if type(version) is not ModelVersion:
        return version
    printed = copy.copy(version)
    printed.__class__ = RegisteredVersion
    return printed
