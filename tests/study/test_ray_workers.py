"""A study on a Ray cluster: a real one of two nodes, on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simllm.errors import SimllmError
from simllm.sim.study.ray_workers import RayWorkers
from simllm.sim.study.study import Study

from .small_study import deadly_axis, study

pytestmark = [
    pytest.mark.slow,
    # Ray's own, on its way in and out.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Starts a cluster of two nodes with a core each, and gives its address."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'simllm[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_a_cluster_gives_the_same_bytes_as_this_machine(address: str, tmp_path: Path) -> None:
    here = Study(study()).run(tmp_path / "here", jobs=1)
    there = Study(study()).run(tmp_path / "there", ray=address)
    assert here.num_done == there.num_done == 4
    assert (tmp_path / "here/results.parquet").read_bytes() == (
        tmp_path / "there/results.parquet"
    ).read_bytes()


def test_a_point_that_kills_its_task_is_recorded_and_the_rest_goes_on(address: str, tmp_path: Path) -> None:
    result = Study(study(axes=[deadly_axis(tmp_path)])).run(ray=address, allow_python=True)
    assert list(result.frame["status"]) == ["ok", "ok", "failed", "failed"]
    assert all(error.startswith("the worker died: ") for error in result.errors)


def test_an_address_without_a_cluster_is_one_line() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'simllm[ray]'")
    with (
        pytest.raises(SimllmError, match=r"^--ray 127.0.0.1:1: no cluster answers") as caught,
        RayWorkers("127.0.0.1:1"),
    ):
        pass
    assert "\n" not in str(caught.value)
