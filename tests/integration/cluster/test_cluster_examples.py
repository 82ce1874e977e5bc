"""The programs of examples/cluster print what their README says; Ray's is run by `nox -s engines`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_examples import block, run
from programs import Store

NEEDED = {"torchrun": "torch", "dask": "distributed"}


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", NEEDED)
def test_a_program_prints_the_sections_of_its_run(name: str, store: Store, tmp_path: Path) -> None:
    pytest.importorskip(NEEDED[name])
    commands, shown = block(f"train_{name}.py")
    assert run(commands, store, tmp_path) == shown
