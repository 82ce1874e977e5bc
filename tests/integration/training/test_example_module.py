"""`python -m mlflow_sysmetrics.examples` names a wrong argument; `test_migrating` runs it."""

from __future__ import annotations

import pytest

from installed import require

require("torch", "optuna", "ignite")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: python -m"),
        (["fly"], "usage: python -m"),
        (["train", "task"], "must be one of task, seed, model.encoder_name"),
        (["train", "training.epochs=2"], "training.num_epochs"),
        (["train", "training=2"], "must be one of"),
        (["train", "training.num_epochs=two"], "training.num_epochs must be like 5, got 'two'"),
        (["hpo", "stage=stage9"], "stage must be one of stage0, stage1, stage2, got 'stage9'"),
    ],
)
def test_a_wrong_argument_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    from mlflow_sysmetrics.examples.__main__ import main

    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
