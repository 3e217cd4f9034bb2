"""What a pool costs by where it lies: rows a second of the same pictures from a folder, tables, archives and S3.

python benchmarks/storage.py

2,000 drawn JPEGs of 256 pixels. Read alone, by one thread, nothing is decoded: in the order of the rows, and in a
random one. Each kind is opened anew in each of five rounds, one after the other, so that other work on the machine
meets all of them alike. S3 is moto's server on loopback, in a process of its own: a request costs what a server in
Python costs, and no network. Everything local is in the page cache.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from rows import add_row

from homing.pools.pool import Pool
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec

COUNT, SIDE, ROUNDS, SHARDS = 2_000, 256, 5, 4
BUCKET = "s3://storage"
SERVER = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def draw(folder: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for number in range(COUNT):
        coarse = generator.integers(0, 255, (16, 16, 3), np.uint8)
        path = folder / f"class{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=92)
        paths.append(path)
    return paths


def pack(root: Path, paths: list[Path]) -> dict[str, str]:
    """The same pictures in every form; name → path of the pool."""
    rows = [{"image": path.read_bytes(), "label": path.parent.name, "key": path.stem} for path in paths]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, root / "pool.parquet", row_group_size=100)
    lance.write_dataset(table, str(root / "pool.lance"))
    with zipfile.ZipFile(root / "pool.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(root / "folder").as_posix())
    (root / "shards").mkdir()
    for shard in range(SHARDS):
        with tarfile.open(root / "shards" / f"{shard:04d}.tar", "w") as archive:
            for row in rows[shard * COUNT // SHARDS : (shard + 1) * COUNT // SHARDS]:
                for suffix, data in (("jpg", row["image"]), ("cls", row["label"].encode())):
                    member = tarfile.TarInfo(f"{row['key']}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    names = {"folder": "folder", "parquet": "pool.parquet", "tar": "shards", "zip": "pool.zip", "Lance": "pool.lance"}
    return {name: str(root / path) for name, path in names.items()}


@contextmanager
def s3(root: Path) -> Iterator[dict[str, str]]:
    """The parquet file, the shards and the Lance table on an S3 server of this machine."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        port = int(server.stdout.readline())
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        from homing.pools.object_store import file_system

        system = file_system("s3")
        system.mkdir(BUCKET)
        system.put_file(str(root / "pool.parquet"), f"{BUCKET}/pool.parquet")
        for shard in sorted((root / "shards").iterdir()):
            system.put_file(str(shard), f"{BUCKET}/shards/{shard.name}")
        lance.write_dataset(lance.dataset(str(root / "pool.lance")).to_table(), f"{BUCKET}/pool.lance")
        try:
            yield {f"S3 {name}": f"{BUCKET}/{path}" for name, path in
                   (("parquet", "pool.parquet"), ("tar", "shards"), ("Lance", "pool.lance"))}  # fmt: skip
        finally:
            server.stdin.close()


def opened(name: str, path: str) -> Pool:
    column = "key" if name.endswith(("parquet", "Lance")) else None
    return read_pool(PoolSpec(path=path, id_column=column))


def measured(name: str, path: str, order: np.ndarray) -> tuple[float, float, float]:
    """Seconds to open, rows a second in order, rows a second in a random order."""
    started = time.perf_counter()
    pool = opened(name, path)
    seconds = [time.perf_counter() - started]
    for rows in (np.arange(COUNT), order):
        pool = opened(name, path)  # nothing is held from before
        started = time.perf_counter()
        for row in rows.tolist():
            pool.read(row)
        seconds.append(time.perf_counter() - started)
    return seconds[0], COUNT / seconds[1], len(order) / seconds[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "storage.json")
    results = parser.parse_args().results
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        os.environ["HOMING_CACHE"] = str(root / "cache")
        paths = draw(root / "folder")
        kinds = pack(root, paths)
        order = np.random.default_rng(1).permutation(COUNT)[:500]
        found: dict[str, list[tuple[float, float, float]]] = {}
        with s3(root) as remote:
            kinds |= remote
            for _ in range(ROUNDS):
                for name, path in kinds.items():
                    found.setdefault(name, []).append(measured(name, path, order))
        size = sum(path.stat().st_size for path in paths) // COUNT
    results.unlink(missing_ok=True)
    versions = {"python": platform.python_version(), "pyarrow": pa.__version__, "lance": lance.__version__}
    about = {"about": {"cores": os.cpu_count(), "load": os.getloadavg(), "bytes_a_picture": size, **versions}}
    for name, rounds in found.items():
        row: dict[str, object] = {"pool": name, "num_rows": COUNT, "num_random": len(order), "rounds": ROUNDS}
        for key, values in zip(("open_seconds", "in_order", "random"), zip(*rounds, strict=True), strict=True):
            digits = 3 if key == "open_seconds" else 0
            row[key] = round(statistics.median(values), digits)
            row[f"{key}_range"] = [round(min(values), digits), round(max(values), digits)]
        add_row(row, results, about)
        print(row)


if __name__ == "__main__":
    main()
