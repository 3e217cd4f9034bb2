"""Scans that are killed, run side by side, or shared out: the features are always those of one whole scan."""

import os
import signal

import numpy as np
import pytest
import torch

from drawn_pools import draw_pool
from homing.errors import RecipeError
from processes import LONG_ENOUGH, ended, group_of, start
from small_scan import SmallScan, scan_and_save

COUNTS = {"cat": 60, "dog": 50, "emu": 40}


@pytest.fixture
def root(tmp_path):
    root = draw_pool(tmp_path / "pool", COUNTS)
    (root / "dog" / "007.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def whole(root, tmp_path):
    """Features as one scan finds them."""
    return SmallScan(root, tmp_path / "whole").scan()


def finished(folder):
    return [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]


def scan_until_killed(root, folder, shards):
    """Killed between two batches, as soon as some shards are whole."""

    def looked():
        if len(finished(folder)) >= shards:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    SmallScan(root, folder, rows_per_shard=8).scan(stop_asked=looked)


def test_a_killed_scan_goes_on_at_the_next_shard(root, tmp_path, whole):
    folder = tmp_path / "cache"
    process = start(scan_until_killed, root, folder, 3)
    assert ended(process, LONG_ENOUGH)
    assert process.exitcode == -signal.SIGKILL
    done = 8 * len(finished(folder))
    assert 24 <= done < 150
    small = SmallScan(root, folder, rows_per_shard=8)
    found, features = small.scan()
    assert found.num_passed in (149 - done, 150 - done)  # the bad one is on either side
    assert torch.equal(features.nan_to_num(), whole[1].nan_to_num())
    assert found.bad == whole[0].bad
    left = [path.name for path in folder.rglob("*") if path.suffix == ".tmp" or "lease" in path.name]
    assert left == []  # the dead one's unfinished shard, and its lease
    names = {path.stem for path in finished(folder)}
    assert {path.stem for path in folder.rglob("*.npy")} == names


def test_two_runs_at_once_do_each_other_no_harm(root, tmp_path, whole):
    folder, outs = tmp_path / "cache", [tmp_path / "a", tmp_path / "b"]
    processes = [start(scan_and_save, root, folder, out) for out in outs]
    for process in processes:
        assert ended(process, LONG_ENOUGH)
        assert process.exitcode == 0
    for out in outs:
        result = torch.load(out.with_name(f"{out.name}-0"), weights_only=False)
        assert torch.equal(result["features"].nan_to_num(), whole[1].nan_to_num())
    found, features = SmallScan(root, folder).scan()
    assert found.num_passed == 0
    assert torch.equal(features.nan_to_num(), whole[1].nan_to_num())


def test_parts_filled_in_any_order_are_one_scan(root, tmp_path, whole):
    small = SmallScan(root, tmp_path / "cache")
    passed = {number: small.scan_part(number, 3) for number in (3, 1)}
    assert passed == {3: 50, 1: 50}
    assert small.scan_part(1, 3) == 0
    found, features = small.scan()  # which finds two thirds there
    assert found.num_passed == 49
    assert torch.equal(features.nan_to_num(), whole[1].nan_to_num())
    assert found.bad == whole[0].bad
    for wrong in ((0, 3), (4, 3)):
        with pytest.raises(RecipeError, match="parts count from 1 to 3"):
            small.scan_part(*wrong)


@pytest.mark.parametrize("begun", [0, 40])
def test_two_processes_of_one_run_share_the_scan_and_find_the_same(root, tmp_path, whole, begun):
    folder, out = tmp_path / "cache", tmp_path / "out"
    if begun:
        SmallScan(root, folder).scan_part(1, 4)
    processes = [start(scan_and_save, root, folder, out, **environment) for environment in group_of(2)]
    for process in processes:
        assert ended(process, LONG_ENOUGH)
        assert process.exitcode == 0
    results = [torch.load(tmp_path / f"out-{rank}", weights_only=False) for rank in range(2)]
    for result in results:
        assert torch.equal(result["features"].nan_to_num(), whole[1].nan_to_num())
        assert result["bad"] == [(67, "dog/007.png", "not a readable image: of no image format")]
        assert np.array_equal(result["digests"].numpy(), whole[0].digests)
        assert result["passed"] == (149 if not begun else 149 - 37)
    assert not list(folder.rglob("meeting-*"))
    assert not list(folder.rglob("lease-*"))


def test_processes_that_share_no_folder_say_so_at_once(root, tmp_path):
    processes = [
        start(scan_and_save, root, tmp_path / f"c{rank}", tmp_path / "out", stderr=tmp_path / f"err-{rank}", **group)
        for rank, group in enumerate(group_of(2))
    ]
    for process in processes:
        assert ended(process, LONG_ENOUGH)
        assert process.exitcode == 1
    for rank in range(2):
        assert "process 1 of 2 does not see what process 0 writes there" in (tmp_path / f"err-{rank}").read_text()


def test_a_process_that_is_killed_in_the_scan_ends_the_others_with_one_sentence(root, tmp_path):
    folder, (first, second) = tmp_path / "cache", group_of(2)
    saved = (root, folder, tmp_path / "out", {"rows_per_shard": 8})
    processes = [
        start(scan_and_save, *saved, stderr=tmp_path / "err-0", **first),
        start(scan_until_killed, root, folder, 1, stderr=tmp_path / "err-1", **second),
    ]
    assert ended(processes[1], LONG_ENOUGH)
    assert processes[1].exitcode == -signal.SIGKILL
    assert ended(processes[0], LONG_ENOUGH)
    assert processes[0].exitcode != 0
    told = (tmp_path / "err-0").read_text()
    assert "LostProcess: process 1 of 2 ended or hangs; start again, what is scanned stays" in told
