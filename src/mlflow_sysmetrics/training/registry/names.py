"""What a model, a stage, an alias and a tag may be called: checked before anything is logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number

ARCHIVED = "Archived"
NONE = "None"
STAGES = (NONE, "Staging", "Production", ARCHIVED)
# The stages that a version serves from, which are those that have an alias of their own.
ALIAS_OF_STAGE = {"Staging": "staging", "Production": "production"}

AUTO = "auto"
_ALIAS = re.compile(r"[\w-]{1,255}")
_VERSION_ALIAS = re.compile(r"v\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Where a version is promoted to.

    Attributes:
        stage: one of `STAGES`; None leaves the stage as it is.
        alias: what points at the version afterwards; None leaves the aliases as they are, but for those of
            stages that the version has left.
        archive_existing: whether other versions of that stage are archived.
    """

    stage: str | None
    alias: str | None
    archive_existing: bool

    @property
    def is_none(self) -> bool:
        """Whether a new version has nothing to be promoted to: it is in no stage to begin with."""
        return self.stage in {None, NONE} and self.alias is None

    def __str__(self) -> str:
        stage = f"stage {self.stage}" if self.stage else ""
        alias = f"alias {self.alias!r}" if self.alias else ""
        return " and ".join(one for one in (stage, alias) if one)


def checked_target(stage: str | None, alias: str | None, *, archive_existing: bool) -> Target:
    """Returns where a version is to go.

    Raises:
        ValueError: there is no such stage, or an alias may not be called so.
    """
    found = checked_stage(stage)
    wanted = ALIAS_OF_STAGE.get(found or "") if alias == AUTO else alias
    if wanted is not None:
        _check_alias(wanted)
    return Target(found, wanted, bool(archive_existing))


def checked_stage(stage: str | None) -> str | None:
    """Returns a stage as the registry spells it; None where none is given.

    Raises:
        ValueError: there is no such stage.
    """
    if stage is None:
        return None
    for known in STAGES:
        if isinstance(stage, str) and stage.lower() == known.lower():
            return known
    raise ValueError(f"there is no stage {stage!r}; a stage is one of {', '.join(STAGES)}, in any case")


def checked_model_name(model_name: str) -> str:
    """Returns the name of a registered model.

    Raises:
        ValueError: a model cannot be called so.
    """
    # MLflow 2.8 takes a slash or a colon, and then no URI models:/... finds the model.
    if not isinstance(model_name, str) or not model_name.strip() or set(model_name) & set("/:"):
        raise ValueError(
            f"a model cannot be called {model_name!r}; give it a name of text without '/' and ':'"
        )
    if {"'", '"'} <= set(model_name):  # MLflow's filters quote with one of them, and know no escapes
        raise ValueError(
            f"a model cannot be called {model_name!r}, with both kinds of quotes: none could find it"
        )
    return model_name


def checked_version(version: str | int) -> str:
    """Returns the number of a version as text.

    Raises:
        ValueError: that is no version number.
    """
    if isinstance(version, bool) or not str(version).isdecimal() or int(version) < 1:
        raise ValueError(f"{version!r} is no version of a model; versions are numbered from 1")
    return str(int(version))


def checked_tags(tags: Mapping[str, object] | None, name: str = "tags") -> dict[str, str]:
    """Returns tags as text.

    Args:
        tags: numbers and booleans become text.
        name: of the argument, for messages.

    Raises:
        ValueError: a key or a value cannot be that of a tag.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise ValueError(f"{name} must map text to text, and is {tags!r}")
    return {key: _checked_tag(key, value, name) for key, value in tags.items()}


def _checked_tag(key: object, value: object, name: str) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_model_version_tag

    if not isinstance(key, str) or not key.strip():
        raise ValueError(f"{name} has the key {key!r}; a key is text, and not empty")
    if not isinstance(value, (str, Number)):
        raise ValueError(f"{name}[{key!r}] is {value!r}; a tag is text, a number or a boolean")
    try:
        _validate_model_version_tag(key, str(value))
    except MlflowException as error:
        raise ValueError(f"{name}[{key!r}] cannot be a tag: {error.message}") from None
    return str(value)


def _check_alias(alias: str) -> None:
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise ValueError(
            f"an alias cannot be called {alias!r}; it has 1 to 255 letters, digits, dashes and underscores"
        )
    if alias.lower() == "latest" or _VERSION_ALIAS.fullmatch(alias):
        raise ValueError(
            f"the alias {alias!r} is reserved: MLflow reads 'latest' and 'v1', 'v2', ... itself; take another"
        )
