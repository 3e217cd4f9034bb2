"""A table on a disk that refuses: one error of ours, and what lay there stays."""

import resource
import signal

import pytest
import torch

from homing.errors import DataError
from homing.rates import RateTable
from processes import LONG_ENOUGH, ended, start

IDS = [f"{row}.png" for row in range(5_000)]
WAYS = ("save", "save_rates")


def _save_with_little_room(path, way):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
    with pytest.raises(DataError, match=r"rates: cannot be written \(.*large.*\); make room, or give another path"):
        getattr(RateTable(len(IDS)), way)(path, IDS)


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path, way):
    (tmp_path / "rates").write_bytes(b"before")
    process = start(_save_with_little_room, tmp_path / "rates", way, stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH)
    assert process.exitcode == 0, (tmp_path / "err").read_text()
    assert (tmp_path / "rates").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err", "rates"]


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_that_takes_no_files_is_told(way):
    table = RateTable(2)
    table.update(torch.arange(2), torch.ones(2))
    with pytest.raises(DataError, match="/proc/rates: cannot be written"):
        getattr(table, way)("/proc/rates", ["a", "b"])
