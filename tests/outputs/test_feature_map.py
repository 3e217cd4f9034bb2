"""The map of features: what is laid out, what lies in `map.parquet`, and how the report shows it."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from homing.outputs import feature_map
from homing.outputs.feature_map import principal_components, write_map
from homing.outputs.report.data import read_run
from homing.outputs.report.page import write_report
from homing.outputs.report.tables import phi_rows
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from report_run import Page, pictures, write_run


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(write_report(write_run(tmp_path_factory.mktemp("map") / "run"), pictures).read_text())


def test_components_keep_apart_what_a_few_target_images_differ_in():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1_000 + 10, 20, generator=generator)
    features[1_000:, 7] += 8  # ten images of another look among a thousand
    places = principal_components(features, 1_000, 5)
    assert places.shape == (1_010, 5)
    assert places[1_000:, 0].min() > places[:1_000, 0].quantile(0.99)
    weights = torch.cat([torch.full((1_000,), 0.5 / 1_000), torch.full((10,), 0.05)])
    torch.testing.assert_close(weights @ places, torch.zeros(5), atol=1e-4, rtol=0)  # of fp32 sums
    covariance = places.T @ (weights[:, None] * places)
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-3, rtol=0)
    assert (covariance.diag().diff() <= 0).all()


def test_features_of_one_column_still_have_a_plane():
    assert principal_components(torch.arange(5.0)[:, None], 3, 50).shape == (5, 2)


def test_features_that_are_mostly_nothing_still_have_a_plane():
    """More than half of the columns are 0 on all images, others are copies: eigenvalues that are all alike."""
    generator = torch.Generator().manual_seed(2)
    features = torch.zeros(90, 1_280)
    features[:, ::40] = torch.rand(90, 32, generator=generator)
    features[:, 1::40] = features[:, ::40]
    places = principal_components(features, 60, 50)
    assert places.shape == (90, 50)
    assert places.isfinite().all()
    assert principal_components(torch.zeros(9, 1_280), 6, 50).abs().max() == 0  # all images alike


class Blocks:
    """Features that are read a few rows at a time."""

    def __init__(self, features):
        self.features, self.asked = features, 0

    @property
    def shape(self):
        return tuple(self.features.shape)

    def rows(self, rows):
        self.asked += len(rows)
        return self.features[rows]


def test_only_the_features_of_the_sample_are_asked_for(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_map, "MAX_SOURCE", 20)
    source, target = (read_pool(PoolSpec(path=str(finished_run.parent / role))) for role in ("source", "target"))
    features = torch.randn(len(source) + len(target), 8, generator=torch.Generator().manual_seed(1))
    blocks = Blocks(features)
    write_map(tmp_path / "blocks", source, target, blocks, seed=3)
    write_map(tmp_path / "tensor", source, target, features, seed=3)
    assert blocks.asked == 20 + len(target)
    assert pq.read_table(tmp_path / "blocks").equals(pq.read_table(tmp_path / "tensor"))


def test_a_large_pool_is_sampled_and_every_target_image_kept(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_map, "MAX_SOURCE", 20)
    source, target = (read_pool(PoolSpec(path=str(finished_run.parent / role))) for role in ("source", "target"))
    features = torch.randn(len(source) + len(target), 8, generator=torch.Generator().manual_seed(1))
    for name in ("one", "two"):
        write_map(tmp_path / name, source, target, features, seed=3)
    table = pq.read_table(tmp_path / "one")
    assert table.equals(pq.read_table(tmp_path / "two"))
    by_role = {
        role: [row["sample_id"] for row in table.to_pylist() if row["role"] == role] for role in ("source", "target")
    }
    assert len(set(by_role["source"])) == 20
    assert set(by_role["source"]) < set(source.ids)
    assert tuple(by_role["target"]) == target.ids


def test_a_run_leaves_its_map_and_the_report_shows_it(finished_run):
    (places,) = read_run(finished_run).places
    assert (len(places.source), len(places.target)) == (42, 12)
    page = Page((finished_run / "report.html").read_text())
    assert "Source and target, by PCA" in page.text
    assert "42 source images (dots) and 12 target images (rings)" in page.text


def test_both_planes_are_drawn_and_images_without_a_rate_are_left_out(page):
    assert "Source and target, by PCA" in page.text
    assert "Source and target, by UMAP" in page.text
    assert "55 source images (dots) and 2 target images (rings)" in page.text


def test_a_damaged_map_costs_the_map_alone(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "map.parquet").write_bytes(b"half")
    page = Page(write_report(run, pictures).read_text())
    assert "Source and target" not in page.text
    assert "Worth it." in page.text


def test_phi_has_the_interval_of_the_settings_that_hold_95_percent(page):
    assert "95 %: 0.02 – 0.1" in page.text
    rows = {
        "rates": {"phi": {"weight": 3.0, "lift": 1.0, "found": 0.2}},
        "judged": [
            {"weight": weight, "lift": 1.0, "posterior": posterior}
            for weight, posterior in ((1.0, 0.01), (3.0, 0.6), (9.0, 0.3), (27.0, 0.09))
        ],
    }
    assert phi_rows(rows) == [("weight", "3", "3 – 27"), ("lift", "1", None), ("found", "0.2", None)]
    assert phi_rows({"rates": {"phi": {"weight": 3.0}}}) == [("weight", "3", None)]  # of an older run


def test_a_constant_effective_sample_size_is_told_in_words(finished_run):
    page = Page((finished_run / "report.html").read_text())
    size = read_run(finished_run).results["rates"]["effective_sample_size"]
    assert f"Effective sample size: {size:,.0f} source images from the first step to the last" in page.text
    assert np.isfinite(size)
