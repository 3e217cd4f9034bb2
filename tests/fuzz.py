"""Damaged files by the thousand: each is read, or refused with an error of ours, soon and in bounded memory.

    python tests/fuzz.py --inputs 200000 [--seed 1] [--only pictures]

Each kind of input has a process of its own. An input is made of the seed, the kind and its number alone, so what is
printed of a failure makes it again. `tests/test_fuzz.py` does the same with some hundred inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageCms

from drawn_pools import draw_picture, encoded
from homing.errors import HomingError
from homing.outputs.rates_reader import RatesFile
from homing.outputs.report.pictures import thumbnail
from homing.pools.decoding import ALLOWED_FORMATS, decode
from homing.pools.reading import read_pool
from homing.rates import RateTable
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe, read_recipe, shipped_recipes
from homing.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SLOW = 5.0
"""Seconds of CPU time that no input may take."""
_HUNG = 120  # seconds on the clock, after which a process says where it is and ends
_ODD = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0", b"\xff", b"\x80")
_WORDS = (
    *(
        b"\0",
        b'"',
        b"'",
        b"\n",
        b"\r",
        b",",
        b";",
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
        b"-",
        b"~",
        b"\\",
        b"#",
        b"%",
        b"|",
        b"\t",
    ),
    *(
        b" ",
        b"=",
        b"null",
        b"NaN",
        b"true",
        b"-1",
        b"1e400",
        b"9" * 400,
        b"../x",
        b"/etc/passwd",
        b"\\u0000",
        b"&a",
        b"*a",
    ),
    *(b"!!int", b"\xc3\xa9", b"e\xcc\x81", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xae"),
)


@dataclass(frozen=True)
class Kind:
    """Inputs of one kind.

    Attributes:
        sound: What is damaged.
        read: Reads one; raises an error of ours, or none.
        is_text: Whether words are put in as often as bytes.
    """

    sound: list[bytes]
    read: Callable[[bytes], None]
    is_text: bool = False


@dataclass
class Found:
    """What came of the inputs of one kind. slowest: CPU seconds; escaped: number and traceback of each failure."""

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    peak_mb: float = 0.0
    escaped: list[str] = field(default_factory=list)


def damaged(data: bytes, generator: random.Random, is_text: bool = False) -> bytes:
    """With bytes changed, put in, taken out, repeated, cut off; headers as often as the rest; rarely other bytes."""
    if generator.random() < 0.02:  # nothing of it
        return generator.randbytes(generator.randrange(64))
    found = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 8))):
        end = len(found) if generator.random() < 0.5 else min(len(found), 200)
        place, kind = generator.randrange(end + 1), generator.random()
        if is_text and generator.random() < 0.6:
            word = generator.choice(_WORDS)
            found[place : place + generator.choice((0, 0, len(word)))] = word
        elif kind < 0.7:
            piece = generator.choice((*_ODD, generator.randbytes(1), generator.randbytes(4)))
            found[place : place + len(piece)] = piece
        elif kind < 0.8:
            found[place:place] = generator.randbytes(generator.randrange(1, 9))
        elif kind < 0.9:
            del found[place : place + generator.randrange(1, 9)]
        elif kind < 0.96:
            found[place:place] = found[place : place + generator.randrange(1, 64)] * generator.choice((1, 1, 1, 100))
        else:
            del found[place:]
    return bytes(found)


def fuzz(name: str, kind: Kind, count: int, seed: int) -> Found:
    """Read `count` damaged inputs of a kind."""
    found = Found(inputs=count)
    warnings.simplefilter("ignore")
    for number in range(count):
        generator = random.Random(f"{seed} {name} {number}")
        data = damaged(generator.choice(kind.sound), generator, kind.is_text)
        faulthandler.dump_traceback_later(_HUNG, exit=True)
        started = time.thread_time()
        try:
            kind.read(data)
        except HomingError as error:
            found.refused += 1
            if not str(error) or " at 0x" in str(error) or len(str(error)) > 20_000:
                found.escaped.append(f"{name} {number}: told {str(error)[:300]!r}")
        except Exception:
            found.escaped.append(f"{name} {number}: {traceback.format_exc(limit=-6)}")
        seconds = time.thread_time() - started
        if seconds > SLOW:
            found.escaped.append(f"{name} {number}: took {seconds:.1f} s")
        found.slowest = max(found.slowest, seconds)
    faulthandler.cancel_dump_traceback_later()
    found.peak_mb = _peak_mb()
    return found


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1_024


def pictures() -> list[bytes]:
    """Every format, in its kinds."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8))
    wide = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    rgba, grey = rgb.convert("RGBA"), rgb.convert("L")
    found = [encoded(rgb, kind) for kind in ALLOWED_FORMATS if kind != "MPO"]
    found += [encoded(rgb, "JPEG", progressive=True, **extra), encoded(rgb.convert("CMYK"), "JPEG")]
    found += [encoded(rgb, "MPO", save_all=True, append_images=[rgb]), encoded(grey, "JPEG")]
    found += [encoded(rgba, "PNG", **extra), encoded(rgb.convert("P"), "PNG", transparency=3), encoded(wide, "PNG")]
    found += [encoded(rgb, "GIF", save_all=True, append_images=[rgba]), encoded(wide, "TIFF"), b"P2 3 1 255 1 2 3"]
    found += [encoded(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")]
    found += [encoded(grey.convert("1"), "TIFF", compression="group4"), encoded(grey.convert("F"), "TIFF")]
    if "WEBP" in ALLOWED_FORMATS:
        found += [encoded(rgb, "WEBP", lossless=True), encoded(rgba, "WEBP", save_all=True, append_images=[rgba])]
    return found


def _read_picture(data: bytes) -> None:
    thumbnail(data)
    assert decode(data, 16, max_pixels=4_000_000).shape == (16, 16, 3)


def kinds(folder: Path) -> Mapping[str, Kind]:
    """All kinds of input. folder: to work in; empty."""
    found = {"pictures": Kind(pictures(), _read_picture)}
    return found | _tables(folder) | _recipes(folder) | _rates(folder) | _checkpoints(folder)


def _tables(folder: Path) -> dict[str, Kind]:
    root, images = folder / "pool", [encoded(draw_picture(0, number), "PNG") for number in range(6)]
    names, labels = [f"{'xy'[number % 2]}/{number}.png" for number in range(6)], ["x", "y"] * 3
    for name, data in zip(names, images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    rows = [{"file_name": name, "label": label, "site": "a, b"} for name, label in zip(names, labels, strict=True)]
    lines = {
        "metadata.csv": "file_name,label,site\n" + "".join(f'{name},{name[0]},"a, b"\n' for name in names),
        "metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
    }
    found = {name: Kind([text.encode()], _reader(root, root / name), True) for name, text in lines.items()}
    plain = _parquet(pa.Table.from_pylist(rows))
    found["metadata.parquet"] = Kind([plain], _reader(root, root / "metadata.parquet"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    content = {"image": [{"bytes": data, "path": None} for data in images], "label": labels}
    dataset = datasets.Dataset.from_dict(content, features=features)
    table = folder / "table.parquet"
    dataset.to_parquet(table)
    dictionary = pa.table({"image": images, "label": pa.array(labels).dictionary_encode()})
    found["tables"] = Kind([table.read_bytes(), _parquet(dictionary)], _reader(table, table))
    datasets.DatasetDict(train=dataset).save_to_disk(folder / "saved")
    part = folder / "saved" / "train"
    arrow = next(part.glob("*.arrow"))
    found["saved dataset"] = Kind([arrow.read_bytes()], _reader(part, arrow))
    for name in ("state.json", "dataset_info.json"):
        found[f"saved {name}"] = Kind([(part / name).read_bytes()], _reader(part, part / name), True)
    splits = folder / "saved" / "dataset_dict.json"
    found["saved dataset_dict.json"] = Kind([splits.read_bytes()], _reader(folder / "saved", splits, "train"), True)
    return found


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _reader(pool: Path, file: Path, split: str | None = None) -> Callable[[bytes], None]:
    """Reads a pool of which one file is damaged; all of it, and puts the file back."""

    def read(data: bytes) -> None:
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(data)
        try:
            found = read_pool(PoolSpec(path=str(pool), split=split))
            found.store.states(found.rows)
            for row in range(min(len(found), 8)):
                with contextlib.suppress(OSError):  # what reads images takes it for a bad one
                    found.read(row)
            for name in found.columns:
                with contextlib.suppress(HomingError):
                    list(found.columns[name])
        finally:
            file.unlink() if before is None else file.write_bytes(before)

    return read


def _recipes(folder: Path) -> dict[str, Kind]:
    texts = [path.read_bytes() for path in shipped_recipes().values()]
    path = folder / "recipe.yaml"

    def read_file(data: bytes) -> None:
        path.write_bytes(data)
        recipe = read_recipe(path)
        assert parse_recipe(recipe.to_yaml()) == recipe

    small = "data: {source: {path: /a}, target: {path: /b}}\ntraining: {epochs: 1}\n"
    overrides = [
        *(b"training.epochs=2", b"data.source=[{path: /a}, {path: /b, name: c}]", b"rates.guide.window=9"),
        *(b"data.source.path=pool #2", b"training.learning_rate=1e-4", b"evaluation.baselines=[l2rw]"),
    ]

    def read_override(data: bytes) -> None:
        parse_recipe(small, [data.decode(errors="surrogateescape")])

    return {"recipes": Kind(texts, read_file, True), "overrides": Kind(overrides, read_override, True)}


def _rates(folder: Path) -> dict[str, Kind]:
    ids = ("a", "b", "c")
    columns = {"sample_id": list(ids), "source": ["s"] * 3, "label": ["x", "y", "x"]}
    sound = _parquet(pa.table(columns | {"rate": pa.array([1.0, 0, 2], pa.float32())}))
    RateTable(3).save(folder / "table", ids)
    file, table = folder / "rates.parquet", folder / "damaged.table"

    def read_file(data: bytes) -> None:
        file.write_bytes(data)
        rates = RatesFile(file)
        rates.rates()
        rates.classes()
        for piece in rates.pieces(rates.columns):
            piece.to_pylist()

    def read_table(data: bytes) -> None:
        table.write_bytes(data)
        loaded = RateTable(3)
        before = {name: value.clone() for name, value in loaded.state_dict().items()}
        try:
            loaded.load(table, ids)
        except HomingError:
            assert all(torch.equal(before[name], value) for name, value in loaded.state_dict().items())
            raise
        assert loaded.rates.isfinite().all()

    return {"rates": Kind([sound], read_file), "rate tables": Kind([(folder / "table").read_bytes()], read_table)}


def _checkpoints(folder: Path) -> dict[str, Kind]:
    tensors = {"model": {"weight": torch.arange(12.0).reshape(3, 4)}, "rates": {"visits": torch.arange(3)}}
    saved = save_checkpoint(folder / "checkpoints", 1, Checkpoint(tensors, {"step": 1, "identity": {"a": "b"}}), 1)

    def reader(name: str, *, with_digests: bool) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            damaged = folder / "damaged"
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(saved, damaged)
            (damaged / name).write_bytes(data)
            if with_digests:
                _sign(damaged)
            load_checkpoint(damaged)

        return read

    found = {}
    for path in sorted(saved.iterdir()):
        is_text, data = path.suffix == ".json", path.read_bytes()
        found[f"checkpoint {path.name}"] = Kind([data], reader(path.name, with_digests=False), is_text)
        if path.name != "manifest.json":
            found[f"signed {path.name}"] = Kind([data], reader(path.name, with_digests=True), is_text)
    return found


def _sign(folder: Path) -> None:
    """Give damaged files a manifest that fits."""
    import hashlib

    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != "manifest.json":
            data = path.read_bytes()
            files[path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    version = json.loads((folder / "manifest.json").read_bytes())["format"]
    digest = hashlib.sha256(json.dumps([version, files], sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"format": version, "files": files, "sha256": digest}))


def _in_a_process(name: str, count: int, seed: int, results: multiprocessing.SimpleQueue[Found]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results.put(fuzz(name, kinds(Path(folder))[name], count, seed))


def main() -> int:
    """Fuzz all kinds; prints a line for each, and what escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000, help="in all; pictures are two fifths of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one kind")
    asked = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        names = list(kinds(Path(folder)))
    shares = {name: 2 * len(names) / 3 if name == "pictures" else 1.0 for name in names}
    total, failed = 0, False
    for name in [asked.only] if asked.only else names:
        count = asked.inputs if asked.only else round(asked.inputs * shares[name] / sum(shares.values()))
        results: multiprocessing.SimpleQueue[Found] = multiprocessing.SimpleQueue()
        process = multiprocessing.Process(target=_in_a_process, args=(name, count, asked.seed, results))
        process.start()
        process.join()
        if process.exitcode:
            print(f"{name}: the process ended with {process.exitcode}", flush=True)
            failed = True
            continue
        found = results.get()
        total, failed = total + found.inputs, failed or bool(found.escaped)
        told = f"{found.inputs:>8,} inputs, {found.refused:>8,} refused, slowest {found.slowest:.2f} s"
        print(f"{name:<28}{told}, peak {found.peak_mb:,.0f} MB, {len(found.escaped)} escaped", flush=True)
        for text in found.escaped[:5]:
            print(text)
    print(f"{total:,} inputs in all")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
