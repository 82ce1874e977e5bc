"""InfiniBand: ports that appear, vanish, saturate and restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlflow_sysmetrics.collectors.infiniband_linux import InfinibandLinux, parse_words
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import OPT_IN

MEGAWORD = 250_000  # words of 4 bytes per megabyte
RECEIVE = "infiniband_receive_megabytes_per_second"
TRANSMIT = "infiniband_transmit_megabytes_per_second"


def port(root: Path, name: str, received: object, transmitted: object) -> Path:
    """Makes the directory of a port, such as "mlx5_0/1"."""
    device, _, number = name.partition("/")
    counters = root / "sys/class/infiniband" / device / "ports" / number / "counters"
    counters.mkdir(parents=True, exist_ok=True)
    (counters / "port_rcv_data").write_text(f"{received}\n")
    (counters / "port_xmit_data").write_text(f"{transmitted}\n")
    return counters


def rates(collector: InfinibandLinux, now: float) -> dict[str, float]:
    return {sample.key: sample.value for sample in collector.collect(now)}


def test_counters_count_four_byte_words() -> None:
    assert parse_words(b"1000\n") == 4000


@pytest.mark.parametrize("text", [b"", b"\n", b"12", b"-1\n", b"nan\n", b"\xff\n", b"9" * 30 + b"\n"])
def test_an_invalid_count_is_rejected(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"is not a count|invalid literal"):
        parse_words(text)


def test_a_saturated_counter_is_unknown() -> None:
    with pytest.raises(ValueError, match="perfquery -R"):
        parse_words(b"4294967295\n")


def test_rates_are_the_sum_over_all_ports(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", 0, 0)
    port(tmp_path, "mlx5_1/1", 7, 7)
    collector = InfinibandLinux(Host(root=tmp_path))
    assert rates(collector, 0) == {}
    port(tmp_path, "mlx5_0/1", 4 * MEGAWORD, 2 * MEGAWORD)
    port(tmp_path, "mlx5_1/1", 7 + 2 * MEGAWORD, 7)
    assert rates(collector, 2) == {RECEIVE: 3, TRANSMIT: 1}


def test_it_is_opt_in() -> None:
    assert InfinibandLinux.family in OPT_IN


def test_a_host_without_adapters_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no port in /sys/class/infiniband"):
        InfinibandLinux(Host(root=tmp_path))


def test_a_software_adapter_has_no_counters(tmp_path: Path) -> None:
    (tmp_path / "sys/class/infiniband/rxe0/ports/1/hw_counters").mkdir(parents=True)
    with pytest.raises(Unavailable, match="no port"):
        InfinibandLinux(Host(root=tmp_path))


def test_if_every_port_fails_the_reason_is_given(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", "", 0)
    with pytest.raises(Unavailable, match="mlx5_0/ports/1"):
        InfinibandLinux(Host(root=tmp_path))


def test_a_failing_port_is_named_and_affects_no_other(tmp_path: Path) -> None:
    counters = port(tmp_path, "mlx5_0/1", 0, 0)
    port(tmp_path, "mlx5_1/1", 0, 0)
    collector = InfinibandLinux(Host(root=tmp_path))
    rates(collector, 0)
    (counters / "port_rcv_data").unlink()
    (counters / "port_rcv_data").mkdir()  # an error even for root
    port(tmp_path, "mlx5_1/1", MEGAWORD, 0)
    assert rates(collector, 1) == {RECEIVE: 1, TRANSMIT: 0}
    assert collector.gaps == ("the counters of mlx5_0/ports/1: Is a directory",)


def test_a_saturated_port_is_omitted_and_named(tmp_path: Path) -> None:
    port(tmp_path, "mlx4_0/1", 4_294_967_295, 0)
    port(tmp_path, "mlx4_0/2", 0, 0)
    collector = InfinibandLinux(Host(root=tmp_path))
    assert collector.gaps == (
        "the counters of mlx4_0/ports/1: the 32-bit counter is full: reset it with perfquery -R",
    )


def test_a_port_without_counters_is_omitted_and_named(tmp_path: Path) -> None:
    """As the drivers i40iw and ipath answer for an adapter without a performance management agent."""
    port(tmp_path, "i40iw0/1", "N/A (no PMA)", "N/A (no PMA)")
    port(tmp_path, "mlx5_0/1", 0, 0)
    collector = InfinibandLinux(Host(root=tmp_path))
    rates(collector, 0)
    port(tmp_path, "mlx5_0/1", MEGAWORD, 0)
    assert rates(collector, 1) == {RECEIVE: 1, TRANSMIT: 0}
    assert collector.gaps == ("the counters of i40iw0/ports/1: the adapter does not count its traffic",)


def test_a_port_that_was_reset_yields_nothing_at_that_tick(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", 9 * MEGAWORD, 9 * MEGAWORD)
    collector = InfinibandLinux(Host(root=tmp_path))
    rates(collector, 0)
    port(tmp_path, "mlx5_0/1", MEGAWORD, 10 * MEGAWORD)
    assert rates(collector, 1) == {}
    port(tmp_path, "mlx5_0/1", 2 * MEGAWORD, 10 * MEGAWORD)
    assert rates(collector, 2) == {RECEIVE: 1, TRANSMIT: 0}


def test_a_port_that_appears_later_counts_from_its_first_reading(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", 0, 0)
    collector = InfinibandLinux(Host(root=tmp_path))
    rates(collector, 0)
    port(tmp_path, "mlx5_1/1", 50 * MEGAWORD, 0)
    assert rates(collector, 31)[RECEIVE] == 0
    port(tmp_path, "mlx5_1/1", 51 * MEGAWORD, 0)
    assert rates(collector, 32)[RECEIVE] == 1


def test_a_port_that_returns_goes_on_from_where_it_was(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", 0, 0)
    collector = InfinibandLinux(Host(root=tmp_path))
    rates(collector, 0)
    shutil.rmtree(tmp_path / "sys/class/infiniband/mlx5_0")
    assert rates(collector, 1) == {}
    port(tmp_path, "mlx5_0/1", 90 * MEGAWORD, 0)
    assert rates(collector, 31)[RECEIVE] == pytest.approx(90 / 31)
    port(tmp_path, "mlx5_0/1", 91 * MEGAWORD, 0)
    assert rates(collector, 32) == {RECEIVE: 1, TRANSMIT: 0}
