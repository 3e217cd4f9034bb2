"""What an epoch of many rows costs to draw: seconds, memory beside the rates, microseconds a row; beside torch's own.

python benchmarks/sampler.py [--rows 100000000] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from homing.rates import RateSampler

DRAWN = 1_000_000  # rows that are read


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    row = measured(arguments.rows)
    for name, value in row.items():
        print(f"{name:28} {value}")
    if arguments.output:
        about = {"torch": torch.__version__, "numpy": np.__version__, "cores": os.cpu_count(), "load": os.getloadavg()}
        Path(arguments.output).write_text(json.dumps({"about": about, "rows": [row]}, indent=1) + "\n")


def measured(num_rows: int) -> dict[str, float | int]:
    rates = torch.from_numpy(np.random.default_rng(0).random(num_rows, dtype=np.float32))
    before, started = peak_gb(), time.perf_counter()
    sampler = RateSampler(rates)
    reader = iter(sampler)
    next(reader)
    built = time.perf_counter()
    beside = peak_gb() - before
    for _ in islice(reader, DRAWN):
        pass
    drawn = time.perf_counter()
    state = sampler.state_dict()
    return {
        "num_rows": num_rows,
        "build_seconds": round(built - started, 2),
        "memory_gb_beside_rates": round(beside, 3),
        "microseconds_a_row": round((drawn - built) / min(DRAWN, num_rows - 1) * 1e6, 2),
        "bytes_of_state": len(json.dumps(state)),
    }


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--output")
    return parser.parse_args()


if __name__ == "__main__":
    main()
