"""`homing score` of rows that bring their features along: by what `homing rate` learned, without a backbone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gaussian_domains import hidden_matches
from typer.testing import CliRunner

from homing.cli.app import app
from homing.errors import DataError
from homing.rates import RateLearner
from rated_tables import NAMES, POOLS, lists_of, rate, write_pools

NEW = hidden_matches(seed=1, wrong=0.2)


def score(run, table, *more, output="new.parquet"):
    words = ["score", str(run), str(table), "--output", str(Path(run).parent / output), "--quiet"]
    return CliRunner().invoke(app, [*words, *map(str, more)])


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A run over rows with a column of features; read it, never write to it."""
    folder = write_pools(tmp_path_factory.mktemp("rated") / "data")
    assert rate(folder).exit_code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def learner():
    halves = {name: features.astype(np.float16).astype(np.float32) for name, (features, _) in POOLS.items()}
    return RateLearner().fit(halves["pool"], POOLS["pool"][1], halves["mine"], POOLS["mine"][1])


def write_new(path, features=None, **columns):
    features = NEW.source_features.numpy() if features is None else features
    base = {"id": [f"new-{row}" for row in range(len(features))], "label": NAMES[NEW.source_labels][: len(features)]}
    pq.write_table(pa.table({**base, "embedding": lists_of(features, "fixed"), **columns}), path)
    return path


def test_new_rows_are_scored_as_the_learner_scores_them(rated, tmp_path, learner):
    """No picture, no backbone: a table of rows that the run never saw."""
    done = score(rated, write_new(tmp_path / "new.parquet"), "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    halves = NEW.source_features.numpy().astype(np.float16).astype(np.float32)
    found = pq.read_table(rated.parent / "new.parquet").to_pandas()
    expected = learner.score_samples(halves, NAMES[NEW.source_labels])
    np.testing.assert_allclose(found.rate, expected, rtol=1e-4)
    assert found.sample_id.tolist() == [f"new-{row}" for row in range(len(found))]
    assert json.loads(done.stdout)["mean_rate"] == pytest.approx(expected.mean(), rel=1e-4)
    assert found.columns.tolist() == pq.read_schema(rated / "rates.parquet").names


def test_features_of_new_rows_may_lie_elsewhere(rated, tmp_path):
    table = write_new(tmp_path / "new.parquet")
    np.save(tmp_path / "new.npy", NEW.source_features.numpy().astype(np.float16))
    renamed = pq.read_table(table).rename_columns(["key", "kind", "vector"])
    pq.write_table(renamed, tmp_path / "renamed.parquet")
    more = ["--features", "vector", "--id-column", "key", "--label-column", "kind"]
    runs = [(table, []), (table, ["--features", tmp_path / "new.npy"]), (tmp_path / "renamed.parquet", more)]
    rates = []
    for number, (place, options) in enumerate(runs):
        done = score(rated, place, *options, output=f"{number}.csv")
        assert done.exit_code == 0, (done.output, done.exception)
        rates.append((rated.parent / f"{number}.csv").read_text())
    assert rates[0] == rates[1] == rates[2].replace("renamed", "new")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"features": np.ones((4, 3))}, [], "has features of 3 numbers, and those of .* have 24"),
        ({"features": np.full((4, 24), np.nan)}, [], r"features of 4 new rows are not finite \(first: row 0\)"),
        ({"label": ["ant", "bee", "cat", "emu"]}, [], "'emu' is not among"),
        ({"id": ["a", "b", "b", "c"]}, [], "id 'b' occurs more than once"),
        ({}, ["--features", "vector"], "there is no column 'vector'"),
        ({}, ["--label-column", "kind"], r"no column 'kind'; .* with --label \(`homing score`: --label-column\)"),
        ({}, ["--root", "."], "--root: is of pools of images"),
        ({}, ["--output", "DIR/run/rates.parquet"], "already"),
    ],
)
def test_new_rows_that_cannot_be_scored_are_refused(change, options, message, rated, tmp_path):
    features = change.pop("features", np.ones((4, 24)))
    table = write_new(tmp_path / "new.parquet", features, **{name: pa.array(value) for name, value in change.items()})
    options = [str(option).replace("DIR/run", str(rated)) for option in options]
    done = score(rated, table, *options, output="refused.parquet")
    assert done.exception is not None
    found = " ".join(str(done.exception).split())
    assert re.search(message, found), found
    assert not (rated.parent / "refused.parquet").exists()


def test_a_scorer_that_is_lost_or_damaged_is_told(rated, tmp_path):
    run, table = tmp_path / "run", write_new(tmp_path / "rows.parquet")
    shutil.copytree(rated, run)
    (run / "scorer" / "scorer.safetensors").write_bytes(b"damaged")
    assert "is damaged" in str(score(run, table).exception)
    shutil.rmtree(run / "scorer")
    assert "rate the source again" in str(score(run, table).exception)


def test_a_report_of_rows_whose_table_is_gone_says_so(tmp_path):
    folder = write_pools(tmp_path / "data")
    assert rate(folder).exit_code == 0
    (folder / "pool.parquet").unlink()
    result = CliRunner().invoke(app, ["report", str(folder / "out")])
    assert isinstance(result.exception, DataError)
    assert f"{folder / 'pool.parquet'}: no such file" in str(result.exception)
