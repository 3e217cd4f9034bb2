"""Whatever bytes stand where a table is expected: it is read, or refused with an error of ours."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz
from drawn_pools import draw_picture
from homing.errors import HomingError
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from long_runs import often

fuzzed = settings(
    max_examples=often(100, 25_000), deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
NAMES = ("x/0.png", "y/1.png")
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


@fuzzed
@given(st.lists(st.lists(cells, max_size=4), max_size=4), st.sampled_from([",", ";", "\t"]))
def test_any_csv_is_read_or_refused(pool, rows, separator):
    text = "\n".join(["file_name,label", *(separator.join(row) for row in rows)])
    (pool / "metadata.csv").write_bytes(text.encode(errors="surrogatepass"))
    with contextlib.suppress(HomingError):
        read_pool(PoolSpec(path=str(pool)))


KINDS = (
    *("pictures", "tables", "saved dataset", "metadata.csv", "metadata.jsonl", "metadata.parquet"),
    *("recipes", "overrides", "rates", "rate tables"),
    *("checkpoint manifest.json", "signed model.safetensors", "signed state.json"),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_of_any_kind_is_read_or_refused_soon(tmp_path, name):
    """More of them, and further kinds: `python tests/fuzz.py`."""
    found = fuzz.fuzz(name, fuzz.kinds(tmp_path)[name], often(60, 10_000), seed=3)
    assert found.escaped == []
    assert found.refused > 0
