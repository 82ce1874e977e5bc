"""Promotion: what a stage, an alias and the versions before come to, also when others promote meanwhile."""

from __future__ import annotations

import logging
import pickle

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from registry_in_memory import RegistryInMemory, RegistryWithoutStages

from mlflow_sysmetrics.training.registry import PromotionError
from mlflow_sysmetrics.training.registry.names import checked_target
from mlflow_sysmetrics.training.registry.promotion import carry_out, not_promoted
from mlflow_sysmetrics.training.registry.stages import STAGE_TAG


def put(
    registry: RegistryInMemory,
    version: int,
    stage: str | None,
    alias: str | None = "auto",
    *,
    archive_existing: bool = True,
) -> None:
    carry_out(
        registry, "ships", str(version), checked_target(stage, alias, archive_existing=archive_existing)
    )


def test_a_promoted_version_has_stage_and_alias() -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Production")
    assert (registry.stages, registry.aliases) == ({"1": "Production"}, {"production": "1"})


def test_the_version_before_is_archived() -> None:
    registry = RegistryInMemory(2)
    put(registry, 1, "Production")
    put(registry, 2, "Production")
    assert registry.stages == {"1": "Archived", "2": "Production"}
    assert registry.aliases == {"production": "2"}


def test_the_version_before_stays_on_request() -> None:
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


def test_a_version_that_goes_on_to_production_leaves_the_alias_of_staging() -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Staging")
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize("stage", ["Archived", "None", "Staging"])
def test_a_version_that_leaves_production_loses_its_alias(stage: str) -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Production")
    put(registry, 1, stage)
    assert "production" not in registry.aliases


def test_archiving_a_version_leaves_the_alias_of_another() -> None:
    registry = RegistryInMemory(2)
    put(registry, 1, "Production")
    put(registry, 2, "Archived")
    assert registry.aliases == {"production": "1"}


def test_an_alias_alone_leaves_stages_and_other_aliases() -> None:
    registry = RegistryInMemory(1)
    put(registry, 1, "Production")
    put(registry, 1, None, "champion")
    assert registry.aliases == {"production": "1", "champion": "1"}
    assert registry.stages == {"1": "Production"}


def test_stages_are_changed_without_mlflows_warning_of_them() -> None:
    put(RegistryInMemory(1), 1, "Production")  # warnings are errors here
    with pytest.warns(FutureWarning):
        RegistryInMemory(1).transition_model_version_stage("ships", "1", "Production")


def test_a_version_that_another_promotes_before_our_alias_is_set_ends_archived() -> None:
    registry = RegistryInMemory(2)
    registry.between = [("alias", lambda: put(registry, 2, "Production"))]
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "1"}
    assert registry.stages == {"1": "Production", "2": "Archived"}


def test_a_version_that_another_puts_into_the_stage_unseen_is_settled_by_the_alias() -> None:
    registry = RegistryInMemory(2)

    def another() -> None:
        registry.stages["2"] = "Production"  # it had found the stage empty, as we do
        registry.between = [("transition", overtake)]

    def overtake() -> None:
        registry.aliases["production"] = "2"  # while we archive its version: our change is not the last word

    registry.between = [("alias", another)]
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "2"}
    assert registry.stages == {"1": "Archived", "2": "Production"}


def test_an_alias_that_another_has_just_made_is_set_after_all() -> None:
    registry = RegistryInMemory(2)

    def another() -> None:
        registry.aliases["production"] = "2"
        raise MlflowException("UNIQUE constraint failed: registered_model_aliases", BAD_REQUEST)

    registry.between = [("alias", another)]
    put(registry, 1, "Production")
    assert registry.aliases == {"production": "1"}


def test_an_alias_that_the_registry_refuses_is_an_error() -> None:
    registry = RegistryInMemory(1)

    def refuse() -> None:
        raise MlflowException("not for you", BAD_REQUEST)

    registry.between = [("alias", refuse)]
    with pytest.raises(MlflowException, match="not for you"):
        put(registry, 1, "Production")


def test_a_registry_without_stages_keeps_the_alias_and_a_tag() -> None:
    registry = RegistryWithoutStages(2)
    put(registry, 1, "Production")
    put(registry, 2, "Production")
    assert registry.aliases == {"production": "2"}
    assert registry.tags == {"1": {STAGE_TAG: "Archived"}, "2": {STAGE_TAG: "Production"}}


def test_a_registry_without_stages_is_told_of_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mlflow_sysmetrics"):
        put(RegistryWithoutStages(1), 1, "Production")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "this registry has no stages: version 1 of model 'ships'" in caplog.text


def test_an_mlflow_that_has_dropped_stages_keeps_the_alias_and_a_tag() -> None:
    class Later(RegistryInMemory):
        """Has no such call any more."""

        def __getattribute__(self, name: str) -> object:
            if name == "transition_model_version_stage":
                raise AttributeError(name)
            return super().__getattribute__(name)

    registry = Later(1)
    put(registry, 1, "Staging")
    assert (registry.aliases, registry.tags) == ({"staging": "1"}, {"1": {STAGE_TAG: "Staging"}})


def test_an_error_that_is_not_about_stages_is_raised() -> None:
    registry = RegistryInMemory(1)

    def fail() -> None:
        raise MlflowException("the database is gone")

    registry.between = [("transition", fail)]
    with pytest.raises(MlflowException, match="the database is gone"):
        put(registry, 1, "Production")


def test_unity_catalogs_own_refusal_is_understood() -> None:
    store = pytest.importorskip("mlflow.store._unity_catalog.registry.rest_store")

    class Catalogue(RegistryInMemory):
        """Refuses as the installed MLflow's client of Unity Catalog does, whatever its words are."""

        def transition_model_version_stage(self, name: str, version: str, stage: str, **_: object) -> None:
            store.UcModelRegistryStore.transition_model_version_stage(None, name, version, stage, False)

    registry = Catalogue(1)
    put(registry, 1, "Production")
    assert registry.tags == {"1": {STAGE_TAG: "Production"}}


def failed(stage: str | None, alias: str | None = "auto", *, archive_existing: bool = True) -> PromotionError:
    target = checked_target(stage, alias, archive_existing=archive_existing)
    return not_promoted("ships", "3", target, OSError("no answer from http://u:secret@host"), "")


def test_the_error_names_the_version_and_how_to_finish() -> None:
    error = failed("Production")
    assert str(error).startswith(
        "Version 3 of model 'ships' is registered, but was not promoted to stage Production"
    )
    assert str(error).endswith("Finish with mlflow_sysmetrics.promote('ships', 3, stage='Production').")
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
def test_the_call_that_finishes_has_the_arguments_that_were_given(
    given: tuple[str | None, ...], call: str
) -> None:
    assert call in str(failed(*given))


def test_the_error_holds_no_password() -> None:
    assert "secret" not in str(failed("Production"))


def test_the_error_survives_a_pool_of_workers() -> None:
    copy = pickle.loads(pickle.dumps(failed("Production")))
    assert (str(copy), copy.version) == (str(failed("Production")), "3")
