"""Promotion: stages, aliases and earlier versions, also when other programs promote at the same time."""

from __future__ import annotations

import logging
import pickle

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from registry_in_memory import RegistryInMemory, RegistryWithoutStages

from mlflow_sysmetrics.training.registry import PromotionError
from mlflow_sysmetrics.training.registry.names import checked_target
from mlflow_sysmetrics.training.registry.promotion import apply_target, not_promoted
from mlflow_sysmetrics.training.registry.stages_and_aliases import STAGE_TAG


def put(
    registry: RegistryInMemory,
    version: int,
    stage: str | None,
    alias: str | None = "auto",
    *,
    archive_existing: bool = True,
) -> None:
    apply_target(
        registry, "ships", str(version), checked_target(stage, alias, archive_existing=archive_existing)
    )


def test_a_promoted_version_has_stage_and_alias() -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Production")
    assert (registry.stages, registry.aliases) == ({"1": "Production"}, {"production": "1"})


def test_the_previous_version_is_archived() -> None:
    registry = RegistryInMemory(2)
    put(registry, 1, "Production")
    put(registry, 2, "Production")
    assert registry.stages == {"1": "Archived", "2": "Production"}
    assert registry.aliases == {"production": "2"}


def test_the_previous_version_stays_if_requested() -> None:
    registry = RegistryInMemory(2)
    put(registry, 1, "Production")
    put(registry, 2, "Production", archive_existing=False)
    assert registry.stages == {"1": "Production", "2": "Production"}
    assert registry.aliases == {"production": "2"}


def test_promoting_again_changes_nothing() -> None:
    registry = RegistryInMemory(2)
    put(registry, 2, "Production")
    put(registry, 2, "Production")
    assert registry.stages == {"1": "None", "2": "Production"}


def test_a_version_that_moves_to_production_loses_the_staging_alias() -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Staging")
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize("stage", ["Archived", "None", "Staging"])
def test_a_version_that_leaves_production_loses_the_production_alias(stage: str) -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Production")
    put(registry, 1, stage)
    assert "production" not in registry.aliases


def test_archiving_a_version_keeps_the_alias_of_another() -> None:
    registry = RegistryInMemory(2)
    put(registry, 1, "Production")
    put(registry, 2, "Archived")
    assert registry.aliases == {"production": "1"}


def test_an_alias_alone_keeps_stages_and_other_aliases() -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Production")
    put(registry, 1, None, "champion")
    assert registry.aliases == {"production": "1", "champion": "1"}
    assert registry.stages == {"1": "Production"}


def test_stages_are_changed_without_mlflows_deprecation_warning() -> None:
    put(RegistryInMemory(1), 1, "Production")  # warnings are errors here
    with pytest.warns(FutureWarning):
        RegistryInMemory(1).transition_model_version_stage("ships", "1", "Production")


def test_a_version_promoted_by_another_program_before_our_alias_is_archived() -> None:
    registry = RegistryInMemory(2)
    registry.between = [("alias", lambda: put(registry, 2, "Production"))]
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "1"}
    assert registry.stages == {"1": "Production", "2": "Archived"}


def test_the_alias_decides_between_two_versions_put_into_the_stage_at_once() -> None:
    registry = RegistryInMemory(2)

    def another() -> None:
        registry.stages["2"] = "Production"  # it found the stage empty, like us
        registry.between = [("transition", overtake)]

    def overtake() -> None:
        registry.aliases["production"] = "2"  # while we archive its version, so ours is not the last change

    registry.between = [("alias", another)]
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "2"}
    assert registry.stages == {"1": "Archived", "2": "Production"}


def test_an_alias_that_another_program_just_created_is_set_on_retry() -> None:
    registry = RegistryInMemory(2)

    def another() -> None:
        registry.aliases["production"] = "2"
        raise MlflowException("UNIQUE constraint failed: registered_model_aliases", BAD_REQUEST)

    registry.between = [("alias", another)]
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "1"}


def test_an_alias_that_the_registry_refuses_raises() -> None:
    registry = RegistryInMemory(1)

    def refuse() -> None:
        raise MlflowException("not for you", BAD_REQUEST)

    registry.between = [("alias", refuse)]
    with pytest.raises(MlflowException, match="not for you"):
        put(registry, 1, "Production")


def test_a_registry_without_stages_gets_the_alias_and_a_tag() -> None:
    registry = RegistryWithoutStages(2)
    put(registry, 1, "Production")
    put(registry, 2, "Production")
    assert registry.aliases == {"production": "2"}
    assert registry.tags == {"1": {STAGE_TAG: "Archived"}, "2": {STAGE_TAG: "Production"}}


def test_a_registry_without_stages_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mlflow_sysmetrics"):
        put(RegistryWithoutStages(1), 1, "Production")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "this registry has no stages: version 1 of model 'ships'" in caplog.text


def test_an_mlflow_that_removed_stages_gets_the_alias_and_a_tag() -> None:
    class Later(RegistryInMemory):
        """A registry client that no longer has the call."""

        def __getattribute__(self, name: str) -> object:
            if name == "transition_model_version_stage":
                raise AttributeError(name)
            return super().__getattribute__(name)

    registry = Later(1)
    put(registry, 1, "Staging")
    assert (registry.aliases, registry.tags) == ({"staging": "1"}, {"1": {STAGE_TAG: "Staging"}})


def test_an_error_that_is_not_about_stages_raises() -> None:
    registry = RegistryInMemory(1)

    def fail() -> None:
        raise MlflowException("the database is gone")

    registry.between = [("transition", fail)]
    with pytest.raises(MlflowException, match="the database is gone"):
        put(registry, 1, "Production")


def test_unity_catalogs_refusal_is_recognized() -> None:
    store = pytest.importorskip("mlflow.store._unity_catalog.registry.rest_store")

    class Catalogue(RegistryInMemory):
        """Refuses stages with the message of the installed MLflow's Unity Catalog client."""

        def transition_model_version_stage(self, name: str, version: str, stage: str, **_: object) -> None:
            store.UcModelRegistryStore.transition_model_version_stage(None, name, version, stage, False)

    registry = Catalogue(1)
    put(registry, 1, "Production")
    assert registry.tags == {"1": {STAGE_TAG: "Production"}}


def failed(stage: str | None, alias: str | None = "auto", *, archive_existing: bool = True) -> PromotionError:
    target = checked_target(stage, alias, archive_existing=archive_existing)
    return not_promoted("ships", "3", target, OSError("no answer from http://u:secret@host"), "")


def test_the_error_names_the_version_and_the_call_that_completes_it() -> None:
    error = failed("Production")
    assert str(error).startswith(
        "Version 3 of model 'ships' is registered, but was not promoted to stage Production"
    )
    assert str(error).endswith("Complete it with mlflow_sysmetrics.promote('ships', 3, stage='Production').")
    assert (error.model_name, error.version) == ("ships", "3")


@pytest.mark.parametrize(
    ("given", "call"),
    [
        (("Production", "champion"), "promote('ships', 3, stage='Production', alias='champion')"),
        (("Production", None), "promote('ships', 3, stage='Production', alias=None)"),
        ((None, "champion"), "promote('ships', 3, alias='champion')"),
        (("Archived",), "promote('ships', 3, stage='Archived')"),
    ],
)
def test_the_call_that_completes_it_has_the_given_arguments(given: tuple[str | None, ...], call: str) -> None:
    assert call in str(failed(*given))


def test_the_error_contains_no_password() -> None:
    assert "no answer from" in str(failed("Production"))
    assert "secret" not in str(failed("Production"))


def test_the_error_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(failed("Production")))
    assert (str(copy), copy.version) == (str(failed("Production")), "3")
