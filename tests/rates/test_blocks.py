"""Pools that are not in memory, or too large to fit probes on all of: rates are the same however the rows come."""

import time
from dataclasses import replace

import pytest
import torch
from gaussian_domains import WIDTH, hidden_matches
from sklearn.metrics import roc_auc_score

from homing.errors import DataError
from homing.rates import Evidence, learn_rates
from homing.rates.learned import consistency, together
from homing.rates.learned.apart import rates_apart
from homing.rates.learned.balance import balanced_within_classes, spread_within_classes
from homing.rates.learned.blocks import HeldFeatures
from homing.rates.learned.consistency import neutral_consistency, pool_consistency
from homing.rates.learned.drawing import draw_rows
from homing.rates.learned.facts import PoolFacts, pool_facts
from homing.rates.learned.groups import groups_of
from homing.rates.learned.likeness import Likeness, target_likeness
from homing.rates.learned.projection import fit_projection
from homing.rates.learned.rate_model import Description, Setting, rates_of

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


class Blocks(HeldFeatures):
    """Features that remember how many rows were asked for at once."""

    most = 0

    def rows(self, rows):
        found = super().rows(rows)
        type(self).most = max(type(self).most, len(found))
        return found


@pytest.fixture
def small_limits(monkeypatch):
    """What is a large pool to these tests: fits on 400 rows, judges on 300."""
    monkeypatch.setattr("homing.rates.learned.drawing.MOST_ROWS", 400)
    monkeypatch.setattr("homing.rates.learned.learner.JUDGED_ROWS", 300)


def in_blocks(evidence):
    return replace(evidence, source_features=Blocks(evidence.source_features))


def test_a_tensor_and_blocks_of_it_give_the_same_rates():
    evidence = hidden_matches(seed=0, wrong=0.2)
    held, blocks = learn_rates(evidence), learn_rates(in_blocks(evidence))
    torch.testing.assert_close(blocks.rates, held.rates, **ROUNDING)
    assert blocks.phi == pytest.approx(held.phi)


def test_a_large_pool_is_never_asked_for_as_a_whole(small_limits, monkeypatch):
    for module in (consistency, together):
        monkeypatch.setattr(module, "BLOCK_ROWS", 256)
    evidence = hidden_matches(seed=1, hidden=160, others=1840, wrong=0.2)
    monkeypatch.setattr("homing.rates.learned.projection.FITTED_ROWS", 400)
    Blocks.most = 0
    plan = learn_rates(in_blocks(evidence))
    assert Blocks.most < 600
    assert plan.rates[evidence.matches].mean() > 1.5 * plan.rates[~evidence.matches].mean()
    assert plan.rates[~evidence.clean].mean() < 0.6 * plan.rates[evidence.clean].mean()


def test_the_size_of_blocks_does_not_change_rates(small_limits, monkeypatch):
    evidence = in_blocks(hidden_matches(seed=2, hidden=100, others=900, wrong=0.1))
    whole = learn_rates(evidence).rates
    for module in (consistency, together):
        monkeypatch.setattr(module, "BLOCK_ROWS", 256)
    torch.testing.assert_close(learn_rates(evidence).rates, whole, **ROUNDING)


def test_fitted_on_some_rows_all_are_ranked_as_well(small_limits):
    evidence = hidden_matches(seed=3, hidden=200, others=1800, wrong=0.2)
    like, alone = target_likeness(evidence, seed=0), pool_consistency(evidence, seed=0)
    assert roc_auc_score(evidence.matches, like.log_ratio) > 0.97
    assert roc_auc_score(evidence.clean, alone.log_probability) > 0.9
    assert like.share == pytest.approx(0.1, abs=0.05)


def test_features_of_a_block_that_are_not_finite_are_refused_with_their_row():
    evidence = hidden_matches(seed=4)
    evidence.source_features[501, 3] = torch.inf
    with pytest.raises(DataError, match="first: row 501"):
        learn_rates(replace(in_blocks(hidden_matches(seed=4)), source_features=Blocks(evidence.source_features)))


def test_drawn_rows_stand_for_their_classes():
    labels = torch.tensor([0] * 900 + [1] * 100 + [2] * 3)
    by = torch.rand(1003, generator=torch.Generator().manual_seed(0))
    rows, masses = draw_rows(labels, 4, 103, by=by, weights=1 + 9 * (by > 0.9))
    own = labels[rows]
    assert torch.bincount(own).tolist()[2] == 3
    assert len(rows) <= 103
    torch.testing.assert_close(torch.zeros(3).index_add_(0, own, masses), torch.tensor([900.0, 100.0, 3.0]))
    # Rows of weight 10 are drawn ten times as often, and stand for a tenth as many each.
    share = float((masses * (by[rows] > 0.9))[own == 0].sum() / 900)
    assert share == pytest.approx(float((by[:900] > 0.9).float().mean()), abs=0.02)


def test_a_row_of_mass_three_is_three_rows():
    generator = torch.Generator().manual_seed(0)
    labels, rates = torch.arange(60) % 3, torch.rand(60, generator=generator) ** 6
    masses = torch.randint(1, 4, (60,), generator=generator)
    repeated = torch.arange(60).repeat_interleave(masses)
    for scaled in (balanced_within_classes, lambda *given: spread_within_classes(*given)[0]):
        torch.testing.assert_close(
            scaled(rates, labels, 3, masses.float())[repeated], scaled(rates[repeated], labels[repeated], 3), **ROUNDING
        )


def test_likeness_of_rows_with_masses_is_that_of_repeated_rows():
    """To the scatter of cross-fits: folds fall otherwise where there are more rows."""
    evidence = hidden_matches(seed=5, hidden=60, others=540)
    masses = torch.where(torch.arange(600) % 2 == 0, 3.0, 1.0)
    repeated = torch.arange(600).repeat_interleave(masses.long())
    by_mass = target_likeness(replace(evidence, masses=masses), seed=0)
    by_rows = target_likeness(evidence.with_source(repeated, None), seed=0)
    assert by_mass.share == pytest.approx(by_rows.share, abs=0.03)
    assert (by_mass.match[repeated] - by_rows.match).abs().mean() < 0.03


def test_ten_million_rows_of_a_class_have_mean_one():
    """Summed in float32 they come out at 0.86 or 1.08, as their values fall."""
    rates = torch.full((1 << 24,), 0.1)
    rates[1::2] = 0.3
    balanced = balanced_within_classes(rates, torch.zeros(len(rates), dtype=torch.int64), 1)
    assert float(balanced.mean(dtype=torch.float64)) == pytest.approx(1.0, abs=1e-6)


def test_what_the_pool_tells_is_kept_and_used_again():
    evidence = hidden_matches(seed=6, wrong=0.2)
    facts = pool_facts(evidence.source_features, evidence.source_labels, evidence.num_classes, seed=0)
    again = PoolFacts.from_tensors({name: value.clone() for name, value in facts.tensors().items()})
    assert torch.equal(learn_rates(evidence, pool=again).rates, learn_rates(evidence).rates)


def test_what_another_pool_tells_is_refused():
    evidence, other = hidden_matches(seed=6), hidden_matches(seed=6, others=100)
    facts = pool_facts(other.source_features, other.source_labels, other.num_classes)
    with pytest.raises(DataError, match="of 180 rows and 4 classes, this pool has 600"):
        learn_rates(evidence, pool=facts)


def test_rates_of_pools_without_common_labels_come_from_blocks_too(small_limits):
    evidence = hidden_matches(seed=7, hidden=100, others=900)
    features = (evidence.source_features, Blocks(evidence.source_features))
    held, blocks = (
        rates_apart(part, evidence.source_labels, 4, evidence.target_features, seed=0).rates for part in features
    )
    torch.testing.assert_close(blocks, held, **ROUNDING)


def test_one_and_two_threads_project_alike_where_rows_are_fewer_than_columns():
    features = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)).relu()
    features[:, 50:150] = 0
    projections = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            projection = fit_projection(features, 128)
            projections.append(projection(features))
    finally:
        torch.set_num_threads(1)
    assert projections[0].shape == (40, 39)  # 40 rows span 39 directions around their mean
    torch.testing.assert_close(*projections, rtol=1e-4, atol=1e-4)


def test_progress_never_falls_and_what_it_raises_ends_the_work(small_limits):
    shares = []
    learn_rates(hidden_matches(seed=8), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 200

    def stop(share):
        if share > 0.1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_rates(hidden_matches(seed=8), progress=stop)


def test_what_is_judged_is_what_is_applied():
    """A class keeps `LEAST_ROWS` of the pool's rows, not of the few that it is judged on."""
    evidence = hidden_matches(seed=9, hidden=100, others=9900)
    setting, match = [Setting(1.0, match_lift=300.0)], evidence.matches.float()
    found = Likeness(match, match, 0.01)
    alone = neutral_consistency(evidence.source_labels, 4)
    applied = rates_of(setting, Description(found, alone), evidence)[0]
    rows, judged = evidence.drawn(400, by=match, weights=1 + 9 * match)
    part = Description(Likeness(match[rows], match[rows], 0.01), alone.of(rows))
    weighed = rates_of(setting, part, judged)[0]
    # Rows that match are few: how many of them stand for how many is known to a percent or two.
    assert float(weighed[judged.matches].mean()) == pytest.approx(float(applied[evidence.matches].mean()), rel=0.03)
    without_masses = rates_of(setting, part, replace(judged, masses=None))[0]
    assert without_masses[judged.matches].mean() < 0.2 * applied[evidence.matches].mean()


def test_the_scorer_follows_the_match_probability_everywhere():
    evidence = hidden_matches(seed=10, hidden=300, others=9700)
    plan = learn_rates(evidence, descriptors=("target_likeness",))
    assert plan.scorer is not None
    likeness = target_likeness(evidence.projected(128), seed=0)
    torch.testing.assert_close(plan.descriptors["target_likeness"], likeness.log_ratio, **ROUNDING)
    at, match = plan.scorer.match_at, plan.scorer.match
    order = likeness.log_ratio.argsort()
    right = torch.searchsorted(at, likeness.log_ratio[order]).clamp(1, len(at) - 1)
    share = ((likeness.log_ratio[order] - at[right - 1]) / (at[right] - at[right - 1]).clamp(min=1e-30)).clamp(0, 1)
    found = match[right - 1] + share * (match[right] - match[right - 1])
    torch.testing.assert_close(found, likeness.match[order], rtol=1e-3, atol=1e-3)
    # A new row is scored by the mean of the cross-fitted probes, a row of the pool by one: they differ a little.
    scored = plan.scorer(evidence.source_features, evidence.source_labels).rates
    assert (scored - plan.rates).abs().mean() < 0.1
    assert scored[evidence.matches].mean() == pytest.approx(plan.rates[evidence.matches].mean().item(), rel=0.1)


def test_many_classes_are_judged_in_groups_and_cost_little():
    """200 classes of 3 images and 2 target images: more than three minutes where all were judged together."""
    generator = torch.Generator().manual_seed(0)
    means = 2 * torch.randn(200, WIDTH, generator=generator)
    labels, few = torch.arange(600) % 200, torch.arange(400) % 200
    evidence = Evidence(
        means[labels] + torch.randn(600, WIDTH, generator=generator),
        labels,
        means[few] + torch.randn(400, WIDTH, generator=generator) + 1,
        few,
        200,
    )
    started = time.process_time()
    plan = learn_rates(evidence)
    assert time.process_time() - started < 20
    assert sum(row["chosen"] for row in plan.judged) == 1
    assert torch.isfinite(plan.rates).all()


def test_groups_hold_every_class_once_and_keep_its_mass():
    labels, few = torch.arange(30_000) % 150, torch.arange(300) % 150
    evidence = Evidence(torch.zeros(30_000, 2), labels, torch.zeros(300, 2), few, 150)
    groups = groups_of(evidence, 1 + torch.arange(30_000) % 7)
    classes = torch.cat([group.classes for group in groups])
    assert len(groups) == 3
    assert sorted(classes.tolist()) == list(range(150))
    for group in groups:
        assert float(group.masses.sum()) == pytest.approx(200 * len(group.classes), rel=1e-4)
        assert len(group.targets) == 2 * len(group.classes)
    assert len(groups_of(evidence.with_target(few < 3), torch.ones(30_000))[0].classes) == 64
