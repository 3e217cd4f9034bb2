from dataclasses import replace

import pytest
import torch
from gaussian_domains import draw_domain, hidden_matches
from sklearn.metrics import roc_auc_score

from homing.rates import learn_rates
from homing.rates.learned.consistency import label_consistency, pool_consistency
from homing.rates.learned.likeness import target_likeness


def test_likeness_ranks_hidden_matching_rows_first():
    evidence = hidden_matches(seed=0)
    likeness = target_likeness(evidence, seed=0)
    assert roc_auc_score(evidence.matches, likeness.log_ratio) > 0.97


@pytest.mark.parametrize("hidden", [0, 60, 180])
def test_the_share_of_matching_rows_is_found(hidden):
    evidence = hidden_matches(seed=1, hidden=hidden, others=600 - hidden)
    likeness = target_likeness(evidence, seed=0)
    # 24 target images give the tails of their scores to about +-0.1 of themselves, and the domains overlap a little.
    assert likeness.share == pytest.approx(hidden / 600, abs=0.08)
    assert likeness.match.mean() == pytest.approx(likeness.share, abs=0.05)


def test_match_probability_rises_with_the_score():
    likeness = target_likeness(hidden_matches(seed=2), seed=0)
    order = likeness.log_ratio.argsort()
    assert (likeness.match[order].diff() >= 0).all()
    assert (likeness.match >= 0).all()
    assert (likeness.match <= 1).all()


def test_a_target_like_the_pool_matches_nearly_everywhere():
    evidence = hidden_matches(seed=3, hidden=600, others=0, shots=20)
    assert target_likeness(evidence, seed=0).share > 0.8


def test_likeness_tells_domains_not_classes():
    evidence = hidden_matches(seed=4, hidden=0, shift=0.0)
    one_class = evidence.with_target(evidence.target_labels == 0)
    likeness = target_likeness(one_class, seed=0)
    in_class = evidence.source_labels == 0
    # Rows of the class are seen as rows of the class are: the target's classes alone lift none of them above all.
    assert likeness.match[in_class].mean() < 0.9


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.4])
def test_the_share_of_wrong_labels_is_found(wrong):
    evidence = hidden_matches(seed=5, wrong=wrong)
    # The surest tenth is 60 rows: one standard deviation is 0.06.
    assert pool_consistency(evidence, seed=0).wrong_share == pytest.approx(wrong, abs=0.13)


def test_wrong_labels_are_told_from_right_ones():
    evidence = hidden_matches(seed=6, wrong=0.3)
    match = target_likeness(evidence, seed=0).match
    consistency = label_consistency(evidence, match, pool_consistency(evidence, seed=0), seed=0)
    assert roc_auc_score(evidence.clean, consistency.log_probability) > 0.9
    assert consistency.right[evidence.clean].mean() > 0.8
    assert consistency.right[~evidence.clean].mean() < 0.4


def test_matching_rows_are_judged_among_their_like():
    """Their classes lie between the pool's: to the pool alone many of them look wrong."""
    alone, among_their_like = [], []
    for seed in range(4):
        evidence = hidden_matches(seed=seed, wrong=0.3, hidden=100)
        pool = pool_consistency(evidence, seed=0)
        consistency = label_consistency(evidence, target_likeness(evidence, seed=0).match, pool, seed=0)
        rows = evidence.matches
        alone.append(roc_auc_score(evidence.clean[rows], pool.log_probability[rows]))
        among_their_like.append(roc_auc_score(evidence.clean[rows], consistency.log_probability[rows]))
    assert sum(among_their_like) / 4 > sum(alone) / 4 + 0.03


def with_copies(evidence, times):
    """Every source image so many times, under the same label."""
    rows = torch.arange(evidence.num_source).repeat(times)
    features, labels, clean = (
        part[rows] for part in (evidence.source_features, evidence.source_labels, evidence.clean)
    )
    return replace(evidence, source_features=features, source_labels=labels, clean=clean, matches=None)


def test_wrong_labels_are_found_although_the_pool_holds_copies():
    areas = []
    for seed in range(4):
        pool = with_copies(hidden_matches(seed=seed, hidden=0, others=300, wrong=0.3), 4)
        areas.append(roc_auc_score(pool.clean, pool_consistency(pool, seed=0).right))
    # A probe that has seen a copy of the row knows its label by heart: 0.69 where copies are spread over the folds.
    assert sum(areas) / 4 > 0.9


def test_clean_labels_are_all_taken_as_right():
    evidence = hidden_matches(seed=7, wrong=0.0)
    assert pool_consistency(evidence, seed=0).right.mean() > 0.99


def test_a_hidden_domain_is_drawn_where_it_is_said_to_be():
    features, labels = draw_domain(400, 0.6, 2.0, torch.Generator().manual_seed(0))
    assert features[:, -4:].mean() == pytest.approx(2.0, abs=0.1)
    assert torch.bincount(labels).tolist() == [100] * 4


@pytest.mark.parametrize("scale", [20.0, 1e6])
def test_a_few_columns_of_huge_scale_hide_nothing(scale):
    """As some transformers have; they would own the mean square, and what tells rows apart would be next to nothing."""
    evidence, generator = hidden_matches(seed=0, wrong=0.3), torch.Generator().manual_seed(0)

    def widened(features):
        return torch.cat([features, scale * torch.randn(len(features), 2, generator=generator)], dim=1)

    wide = replace(
        evidence,
        source_features=widened(evidence.source_features),
        target_features=widened(evidence.target_features),
    )
    plan = learn_rates(wide)
    assert roc_auc_score(evidence.matches, plan.match) > 0.93
    assert roc_auc_score(evidence.clean, plan.right) > 0.93
