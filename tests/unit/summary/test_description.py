"""The tag and the block of the Description: short, the verdict first, and nothing of the user's touched."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.summary.description import block, verdict_line, with_block
from mlflow_sysmetrics.summary.rules import Verdict

BOUND = Verdict("input-bound", "A GPU waited.")
FAULTS = Verdict("faults", "GPU 0 reported 1 critical errors (XID).", node="rack_1/<b>x</b>")
FIGURES = {"measured_hours": 2.0, "gpu_hours": 2.0, "gpu_idle_percentage": 12.0, "energy_watt_hours": 1500.0}
OLD = block([FAULTS], {}, "old")
NEW = block([BOUND], FIGURES, "0123")


def test_the_verdict_is_one_line_for_a_table() -> None:
    assert verdict_line([BOUND]) == "input-bound: A GPU waited."
    assert verdict_line([BOUND, FAULTS]) == "input-bound: A GPU waited. Also: faults."
    assert verdict_line([]) == "-"
    long = verdict_line([Verdict("faults", "x" * 9000), BOUND])
    assert len(long) == 500
    assert long.endswith("... Also: input-bound.")


def test_the_block_begins_with_the_verdict() -> None:
    lines = [line for line in NEW.splitlines() if line]
    assert lines[1] == "**input-bound**: A GPU waited."
    assert "Measured 2 h 0 min, idle 12 %, 2 h of GPUs, energy 1.5 kWh." in lines
    assert lines[-2].endswith("`mlflow-sysmetrics report 0123`")


def test_the_name_of_a_node_is_text() -> None:
    assert r"(node rack\_1/\<b\>x\</b\>)" in block([FAULTS], {}, "run")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NEW),
        (" \n", NEW),
        (OLD, NEW),
        (f"mine\n\n{OLD}", f"mine\n\n{NEW}"),
        (f"{OLD}\nmine", f"{NEW}\nmine"),
        ("mine", None),
        (OLD.removesuffix(" -->"), None),  # half a block is the user's
    ],
)
def test_only_our_block_is_replaced(text: str, expected: str | None) -> None:
    assert with_block(text, NEW) == expected
