"""Names of models, stages, aliases, versions and tags, checked before anything is logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number

from mlflow_sysmetrics.mlflow_api.secrets import cleaned

ARCHIVED = "Archived"
NONE = "None"
STAGES = (NONE, "Staging", "Production", ARCHIVED)
# The stages that versions are served from; each has its own alias.
ALIAS_OF_STAGE = {"Staging": "staging", "Production": "production"}

AUTO = "auto"
_ALIAS = re.compile(r"[\w-]{1,255}")
_VERSION_ALIAS = re.compile(r"v\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Where a version is promoted to.

    Attributes:
        stage: one of `STAGES`; None leaves the stage as it is.
        alias: the alias to point to the version; None sets none. Aliases of stages that the version leaves
            are removed in any case.
        archive_existing: whether other versions in that stage are archived.
    """

    stage: str | None
    alias: str | None
    archive_existing: bool

    @property
    def is_none(self) -> bool:
        """True if a new version need not be promoted: it starts without stage and alias."""
        return self.stage in {None, NONE} and self.alias is None

    def __str__(self) -> str:
        stage = f"stage {self.stage}" if self.stage else ""
        alias = f"alias {self.alias!r}" if self.alias else ""
        return " and ".join(one for one in (stage, alias) if one)


def checked_target(stage: str | None, alias: str | None, *, archive_existing: bool) -> Target:
    """Returns where a version is to be promoted to.

    Raises:
        ValueError: the stage does not exist, or the alias is invalid.
    """
    target_stage = checked_stage(stage)
    wanted = ALIAS_OF_STAGE.get(target_stage or "") if alias == AUTO else alias
    if wanted is not None:
        _check_alias(wanted)
    return Target(target_stage, wanted, bool(archive_existing))


def checked_stage(stage: str | None) -> str | None:
    """Returns a stage in the registry's spelling; None if none is given.

    Raises:
        ValueError: the stage does not exist.
    """
    if stage is None:
        return None
    for known in STAGES:
        if isinstance(stage, str) and stage.lower() == known.lower():
            return known
    raise ValueError(f"stage must be one of {', '.join(STAGES)} (in any case) or None, got {stage!r}")


def checked_model_name(model_name: str) -> str:
    """Returns the name of a registered model.

    Raises:
        ValueError: the name is invalid.
    """
    # MLflow 2.8 accepts a slash or a colon, and then no models:/ URI finds the model.
    if not isinstance(model_name, str) or not model_name.strip() or set(model_name) & set("/:"):
        raise ValueError(f"model_name must be a non-empty string without '/' and ':', got {model_name!r}")
    if {"'", '"'} <= set(model_name):  # MLflow's filters quote with one of them and have no escapes
        raise ValueError(
            f"model_name must not contain both kinds of quotes, got {model_name!r}; no search could find it"
        )
    return model_name


def checked_version(version: str | int) -> str:
    """Returns the number of a version as a string.

    Raises:
        ValueError: it is not a version number.
    """
    if isinstance(version, bool) or not str(version).isdecimal() or int(version) < 1:
        raise ValueError(f"version must be an integer >= 1, got {version!r}")
    return str(int(version))


def checked_tags(tags: Mapping[str, object] | None, name: str = "tags") -> dict[str, str]:
    """Returns tags as strings.

    Args:
        tags: the tags; numbers and booleans become strings.
        name: the name of the argument, for messages.

    Raises:
        ValueError: a key or a value is invalid.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise ValueError(f"{name} must map strings to strings, got {tags!r}")
    return {key: _checked_tag(key, value, name) for key, value in tags.items()}


def _checked_tag(key: object, value: object, name: str) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_model_version_tag

    if not isinstance(key, str) or not key.strip():
        raise ValueError(f"{name} keys must be non-empty strings, got {key!r}")
    if not isinstance(value, (str, Number)):
        raise ValueError(f"{name}[{key!r}] must be a string, a number or a boolean, got {value!r}")
    try:
        _validate_model_version_tag(key, str(value))
    except MlflowException as error:
        raise ValueError(f"{name}[{key!r}] is not a valid tag: {cleaned(error.message)}") from None
    return str(value)


def _check_alias(alias: str) -> None:
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise ValueError(f"alias must have 1 to 255 letters, digits, dashes and underscores, got {alias!r}")
    if alias.lower() == "latest" or _VERSION_ALIAS.fullmatch(alias):
        raise ValueError(
            f"alias must not be 'latest', 'v1', 'v2', ..., which MLflow has reserved, got {alias!r}; "
            "choose another name"
        )
