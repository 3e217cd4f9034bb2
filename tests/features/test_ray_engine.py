"""A scan on a Ray cluster of two nodes, one of which is taken away under it."""

import sys
import threading
import time

import numpy as np
import pytest
import torch

from drawn_pools import draw_pool
from homing.errors import RecipeError
from processes import ended, start
from small_scan import SmallScan


@pytest.fixture
def root(tmp_path):
    root = draw_pool(tmp_path / "pool", {"cat": 250, "dog": 250})
    (root / "dog" / "007.png").write_bytes(b"no picture")
    return root


def scan_on_two_nodes(root, folder, where):
    import ray
    from ray.cluster_utils import Cluster

    from homing.features.ray_engine import scan_with_ray

    torch.set_num_threads(1)
    small = SmallScan(root, folder, rows_per_shard=8, workers=1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    killed = []

    def kill():
        while len(list(folder.rglob("*.parquet"))) < 6:
            time.sleep(0.01)
        cluster.remove_node(nodes[1], allow_graceful=False)
        killed.append(len(list(folder.rglob("*.parquet"))))

    killer = threading.Thread(target=kill)
    killer.start()
    pictures = small.pictures()
    with small.open() as store:
        rows = np.arange(len(pictures.images))
        found = scan_with_ray(pictures, rows, store, model=small.model, batch_size=8)
        features = found.features.tensor()
    killer.join()
    torch.save({"features": features, "bad": found.bad, "killed": killed}, where)
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.ray
def test_a_node_that_dies_in_mid_scan_changes_nothing(root, tmp_path):
    whole, features = SmallScan(root, tmp_path / "whole", rows_per_shard=500).scan()
    process = start(scan_on_two_nodes, root, tmp_path / "cache", tmp_path / "out", RAY_USAGE_STATS_ENABLED="0")
    assert ended(process, 250)
    assert process.exitcode == 0
    result = torch.load(tmp_path / "out", weights_only=False)
    assert torch.equal(result["features"].nan_to_num(), features.nan_to_num())
    assert result["bad"] == whole.bad
    assert 6 <= result["killed"][0] < 60
    assert SmallScan(root, tmp_path / "cache").scan()[0].num_passed == 0


def test_without_ray_it_is_said_what_to_install(root, tmp_path, monkeypatch):
    from homing.features.ray_engine import scan_with_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    small = SmallScan(root, tmp_path / "cache")
    with small.open() as store, pytest.raises(RecipeError, match=r"pip install 'homing\[ray\]'"):
        scan_with_ray(small.pictures(), np.arange(3), store)
