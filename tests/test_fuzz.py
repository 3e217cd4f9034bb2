"""Whatever bytes stand where a table is expected: it is read, or refused with an error of ours."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import fuzz
from drawn_pools import draw_picture
from homing.errors import HomingError
from homing.outputs.rates_reader import RatesFile
from homing.pools.decoding import ALLOWED_FORMATS, decode
from homing.pools.reading import read_pool
from homing.rates import RateTable
from homing.recipe.schema import PoolSpec
from long_runs import often

fuzzed = settings(
    max_examples=often(100, 25_000), deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
IDS = ("a", "b", "c")


def _parquet(**columns) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _table_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        RateTable(3).save(Path(folder) / "t", IDS)
        return (Path(folder) / "t").read_bytes()


RATES = _parquet(sample_id=list(IDS), source=["s"] * 3, label=["x", "y", "x"], rate=pa.array([1.0, 0, 2], pa.float32()))
TABLE = _table_file()
NAMES = ("x/0.png", "y/1.png")
METADATA = {
    "metadata.csv": b'file_name,label,site\nx/0.png,x,"a, b"\ny/1.png,y,\n',
    "metadata.jsonl": b'{"file_name": "x/0.png", "label": "x"}\n{"file_name": "y/1.png", "label": null}\n',
    "metadata.parquet": _parquet(file_name=list(NAMES), label=["x", "y"]),
}


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A sound file with a few bytes changed, put in, or taken out; or any bytes at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("change", "insert", "remove", "cut")))
        if kind == "cut":
            del data[start:]
        elif kind == "remove":
            del data[start : start + draw(st.integers(1, 8))]
        elif kind == "insert":
            data[start:start] = draw(st.binary(min_size=1, max_size=8))
        else:
            piece = draw(st.binary(min_size=1, max_size=4))
            data[start : start + len(piece)] = piece
    return bytes(data)


cells = st.one_of(
    st.sampled_from([*NAMES, "x", "", "../x", "=1+1", "\0", '"', "é", "null", "1e400"]), st.text(max_size=6)
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    root = tmp_path_factory.mktemp("pool")
    for name in NAMES:
        (root / name).parent.mkdir(exist_ok=True)
        draw_picture(0).save(root / name)
    return root


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _pictures() -> list[bytes]:
    """One of each kind that is read, as far as they differ to a decoder."""
    rgb, exif = draw_picture(0, size=40), Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70)
    made = [_encoded(rgb, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")]
    made += [_encoded(rgb, "JPEG", exif=exif, icc_profile=profile), _encoded(rgb, "JPEG", progressive=True)]
    made += [_encoded(rgb.convert("CMYK"), "JPEG"), _encoded(rgb.convert("RGBA"), "PNG", icc_profile=profile)]
    made += [_encoded(rgb.convert("P"), "PNG", transparency=3), _encoded(grey, "PNG"), _encoded(grey, "TIFF")]
    made += [_encoded(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")]
    made += [_encoded(rgb.convert("F"), "TIFF"), _encoded(rgb.convert("I"), "TIFF"), b"P2 3 1 255 1 2 3"]
    return made + [_encoded(rgb, kind) for kind in ("JPEG2000", "AVIF") if kind in ALLOWED_FORMATS]


PICTURES = _pictures()


def refused(read) -> bool:
    """Whether reading ends with an error of ours; any other one goes through."""
    try:
        read()
    except HomingError:
        return True
    return False


@fuzzed
@given(damaged(RATES))
def test_a_damaged_rates_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.parquet"
    path.write_bytes(data)

    def read():
        file = RatesFile(path)
        file.rates()
        file.classes()

    refused(read)


@fuzzed
@given(damaged(TABLE))
def test_a_damaged_rate_table_is_read_or_refused_and_changes_nothing_then(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.table"
    path.write_bytes(data)
    table = RateTable(3)
    before = table.state_dict()
    if refused(lambda: table.load(path, IDS)):
        assert all(torch.equal(before[name], tensor) for name, tensor in table.state_dict().items())
    assert table.rates.isfinite().all()


def _read_metadata(pool: Path, name: str, data: bytes) -> None:
    path = pool / name
    path.write_bytes(data)
    try:
        refused(lambda: read_pool(PoolSpec(path=str(pool))))
    finally:
        path.unlink()


@fuzzed
@given(st.sampled_from(sorted(METADATA)).flatmap(lambda name: st.tuples(st.just(name), damaged(METADATA[name]))))
def test_damaged_metadata_is_read_or_refused(pool, found):
    _read_metadata(pool, *found)


@fuzzed
@given(st.lists(st.lists(cells, max_size=4), max_size=4), st.sampled_from([",", ";", "\t"]))
def test_any_csv_is_read_or_refused(pool, rows, separator):
    text = "\n".join(["file_name,label", *(separator.join(row) for row in rows)])
    _read_metadata(pool, "metadata.csv", text.encode(errors="surrogatepass"))


@pytest.mark.filterwarnings("ignore")  # Pillow's own words on damage
@fuzzed
@given(st.sampled_from(PICTURES).flatmap(damaged))
def test_a_damaged_picture_is_decoded_or_refused_in_one_sentence(data):
    told, canvas = "", None
    try:
        canvas = decode(data, 16, max_pixels=4_000_000)
    except HomingError as error:
        told = str(error)
    assert "\n" not in told
    assert told or (canvas.shape, canvas.dtype) == ((16, 16, 3), np.uint8)


KINDS = ("pictures", "tables", "saved dataset", "metadata.csv", "metadata.jsonl", "recipes", "overrides", "rates",
         "checkpoint manifest.json", "signed model.safetensors", "signed state.json")  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_of_any_kind_is_read_or_refused_soon(tmp_path, name):
    """More of them, and further kinds: `python tests/fuzz.py`."""
    found = fuzz.fuzz(name, fuzz.kinds(tmp_path)[name], often(40, 5_000), seed=3)
    assert found.escaped == []
    assert found.refused > 0
