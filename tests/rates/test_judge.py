import pytest
import torch
from gaussian_domains import described, hidden_matches

from homing.errors import DataError
from homing.rates import Evidence
from homing.rates.learned.judge import JUDGE_RIDGE, choose, fit_candidates, judge, judge_ridge
from homing.rates.learned.probe import log_probabilities, with_bias
from homing.rates.learned.rate_model import Setting, rates_of
from homing.rates.learned.work import Work

BOLD = [Setting(10, 1, 0), Setting(10, 30, 0)]


def lifted_rates(part):
    return rates_of(BOLD, described(part), part)


def nearest_rows_lifted(part):
    """A descriptor that can be bribed: it lifts the source rows that target images have for nearest neighbours."""
    distances = torch.cdist(part.target_features, part.source_features)
    lifted = torch.ones(2, part.num_source)
    same_class = part.target_labels[:, None] == part.source_labels
    nearest = torch.where(same_class, distances, torch.inf).topk(3, largest=False).indices
    lifted[1, nearest.flatten()] = 100.0
    return lifted


def test_hidden_matching_rows_earn_their_lift():
    evidence = hidden_matches(seed=0)
    verdict = judge(evidence, torch.tensor([10.0, 10.0]), lifted_rates)
    assert verdict.chosen == 1
    assert verdict.losses.shape == (2, evidence.num_target)


def test_a_leak_of_held_out_images_is_what_folds_keep_out():
    """Nothing matches here: rates fitted with the held-out images look good on them, refitted ones do not."""
    evidence = hidden_matches(seed=1, hidden=0, shift=0.0)
    leaked = nearest_rows_lifted(evidence)
    weights = torch.tensor([1.0, 1.0])
    bribed = judge(evidence, weights, lambda part: leaked).losses.mean(dim=1)
    honest = judge(evidence, weights, nearest_rows_lifted).losses.mean(dim=1)
    assert bribed[1] - bribed[0] < honest[1] - honest[0] - 0.02


def test_no_fold_sees_the_images_it_is_scored_on():
    evidence = hidden_matches(seed=2)
    seen = []

    def remember(part):
        seen.append({tuple(row.tolist()) for row in part.target_features})
        return torch.ones(1, part.num_source)

    plain = judge(evidence, torch.tensor([1.0]), remember, folds=4)
    everyone = {tuple(row.tolist()) for row in evidence.target_features}
    held_out = [everyone - part for part in seen]
    assert sum(len(part) for part in held_out[:4]) == evidence.num_target
    assert set().union(*held_out[:4]) == everyone

    # The same from the other side: what a fold holds out moves no loss but its own.
    first = torch.tensor([tuple(row.tolist()) in held_out[0] for row in evidence.target_features])
    moved = hidden_matches(seed=2)
    moved.target_labels[first] = (moved.target_labels[first] + 1) % moved.num_classes
    again = judge(moved, torch.tensor([1.0]), remember, folds=4)
    assert plain.losses.shape == again.losses.shape


def test_the_prior_decides_between_candidates_that_images_hardly_tell_apart():
    hard = torch.linspace(0, 5, 40)
    losses = torch.stack([hard, hard - 0.02])  # 0.8 nats over 40 images
    prior = torch.tensor([0.0, -1.0])
    assert choose(losses, torch.zeros(2)) == 1
    assert choose(losses, prior) == 0
    assert choose(losses.repeat(1, 10), prior) == 1


def test_the_verdict_is_the_same_twice():
    evidence = hidden_matches(seed=3)
    first, second = (judge(evidence, torch.tensor([10.0, 10.0]), lifted_rates, seed=5) for _ in range(2))
    assert torch.equal(first.losses, second.losses)


def test_progress_rises_to_one():
    shares = []
    judge(
        hidden_matches(seed=4),
        torch.tensor([1.0]),
        lambda part: torch.ones(1, part.num_source),
        work=Work(shares.append),
    )
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_fewer_images_than_folds_are_refused():
    evidence = hidden_matches(seed=5).with_target(torch.arange(3))
    with pytest.raises(DataError, match="3 labelled images, fewer than the 5 folds"):
        judge(evidence, torch.tensor([1.0]), lambda part: torch.ones(1, part.num_source))


def test_probes_of_many_classes_tell_them_apart():
    """Under the penalty of a few classes, a hundred are told apart by little else than their means."""
    generator = torch.Generator().manual_seed(0)
    means, labels = torch.randn(100, 64, generator=generator), torch.arange(1500) % 100
    features = means[labels] + 0.3 * torch.randn(1500, 64, generator=generator)
    evidence = Evidence(
        source_features=features[:1000],
        source_labels=labels[:1000],
        target_features=features[1000:1200],
        target_labels=labels[1000:1200],
        num_classes=100,
    )
    (probe,) = fit_candidates(evidence, torch.tensor([1.0]), torch.ones(1, 1000))
    found = log_probabilities(with_bias(features[1200:]), probe)
    assert torch.nn.functional.nll_loss(found, labels[1200:]) < 0.2


def test_the_penalty_of_few_classes_does_not_depend_on_their_number():
    assert judge_ridge(2) == judge_ridge(10) == JUDGE_RIDGE
    assert judge_ridge(1000) == judge_ridge(10_000) < judge_ridge(30) < JUDGE_RIDGE
