"""A long training: memory and open files stay where they are, and so does the number of checkpoints."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from resumable import draw, resumable

from long_runs import often
from processes import start

STEPS, WARM = often(200, 2_000), often(100, 200)  # memory settles within the first epochs
EVERY, KEEP = 20, 2


def resident_kb() -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def _train(pictures: Path, folder: Path) -> None:
    """Train, and note every few steps what the process holds."""
    seen = []
    tuning = resumable("vit", pictures, folder, num_steps=STEPS, every=EVERY, keep=KEEP, workers=2)

    def advance(steps: int) -> None:
        if tuning.step % EVERY == 0 and tuning.step >= WARM:
            checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
            seen.append([tuning.step, resident_kb(), len(os.listdir("/proc/self/fd")), checkpoints])

    tuning.run(advance)
    (folder / "seen.json").write_text(json.dumps(seen))


@pytest.mark.timeout(1_800)
def test_a_long_training_holds_no_more_at_its_end_than_at_its_beginning(tmp_path):
    process = start(_train, draw(tmp_path / "pictures"), tmp_path / "run", stderr=tmp_path / "err")
    (tmp_path / "run").mkdir()
    process.join()
    assert process.exitcode == 0, (tmp_path / "err").read_text()
    seen = json.loads((tmp_path / "run" / "seen.json").read_text())
    growth = max(kb for _, kb, _, _ in seen) / seen[0][1] - 1
    print(f"{STEPS} steps: resident memory {seen[0][1] / 1e3:.0f} MB, growth {growth:.2%}, files {seen[0][2]}")
    assert growth < 0.05
    assert len({files for _, _, files, _ in seen}) == 1
    assert all(len(checkpoints) <= KEEP for *_, checkpoints in seen)
    assert seen[-1][0] == STEPS
