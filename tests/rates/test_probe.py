import pytest
import torch
from sklearn.linear_model import LogisticRegression

from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias

RIDGE = 0.01


def draw_rows(num_rows: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % 3
    features = torch.randn(num_rows, 6, generator=generator)
    features[:, 0] += labels
    return features, labels


def test_agrees_with_scikit_learn_for_every_weighting():
    features, labels = draw_rows(240)
    weights = torch.rand(4, 240, generator=torch.Generator().manual_seed(1))
    probes = fit_probes(with_bias(features), labels, weights, 3, ridge=RIDGE, max_steps=200, tolerance=1e-6)
    for weight, probe in zip(weights, probes, strict=True):
        reference = LogisticRegression(C=1 / (RIDGE * float(weight.sum())), tol=1e-10, max_iter=1000)
        expected = reference.fit(features, labels, sample_weight=weight).predict_log_proba(features)
        found = log_probabilities(with_bias(features), probe)
        # fp32 against fp64, both stopped at a gradient of about 1e-6 of the first.
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=2e-3, rtol=0)


def test_rows_of_weight_zero_are_as_good_as_absent():
    features, labels = draw_rows(120)
    weights = torch.ones(1, 120)
    weights[:, 80:] = 0
    features[80:] = 100.0
    # Only the conditioning may notice the rows that are left out.
    with_absent = fit_probes(with_bias(features), labels, weights, 3, max_steps=500, tolerance=1e-6)
    without = fit_probes(with_bias(features[:80]), labels[:80], weights[:, :80], 3, max_steps=500, tolerance=1e-6)
    torch.testing.assert_close(
        log_probabilities(with_bias(features[:80]), with_absent),
        log_probabilities(with_bias(features[:80]), without),
        atol=2e-2,
        rtol=0,
    )


def test_probes_fitted_together_equal_probes_fitted_alone():
    features, labels = draw_rows(90)
    weights = torch.rand(3, 90, generator=torch.Generator().manual_seed(2))
    together = fit_probes(with_bias(features), labels, weights, 3, max_steps=200, tolerance=1e-6)
    alone = [fit_probes(with_bias(features), labels, w[None], 3, max_steps=200, tolerance=1e-6)[0] for w in weights]
    torch.testing.assert_close(together, torch.stack(alone), atol=2e-3, rtol=0)


def test_a_warm_start_ends_where_a_cold_one_does():
    features, labels = draw_rows(90)
    weights = torch.ones(1, 90)
    cold = fit_probes(with_bias(features), labels, weights, 3, max_steps=200, tolerance=1e-6)
    start = torch.randn(7, 3, generator=torch.Generator().manual_seed(3))
    start = start - start.mean(dim=1, keepdim=True)
    warm = fit_probes(with_bias(features), labels, weights, 3, start=start, max_steps=200, tolerance=1e-6)
    torch.testing.assert_close(warm, cold, atol=2e-3, rtol=0)


@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_classes_without_rows_are_no_trouble(num_classes):
    features, _ = draw_rows(30)
    labels = torch.zeros(30, dtype=torch.int64)
    probes = fit_probes(with_bias(features), labels, torch.ones(1, 30), num_classes)
    assert torch.isfinite(probes).all()
    assert (log_probabilities(with_bias(features), probes)[0].argmax(dim=1) == 0).all()


@pytest.mark.parametrize("num_classes", [3, 40])
def test_columns_that_hardly_move_do_not_hold_up_the_others(num_classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1200) % num_classes
    features = torch.randn(num_classes, 12, generator=generator)[labels] * 2
    features = features + torch.randn(1200, 12, generator=generator)
    features[:, ::4] *= 1e-5  # as of a unit that is all but dead
    moving = torch.arange(12) % 4 != 0
    whole, rest = (
        with_bias(seen)
        @ fit_probes(with_bias(seen), labels, torch.ones(1, 1200), num_classes, ridge=0.05, tolerance=1e-4)[0]
        for seen in (features, features[:, moving])
    )
    assert float((whole.argmax(1) == labels).float().mean()) > 0.7
    # the dead ones tell next to nothing; both stop at a gradient of 1e-4 of the first
    torch.testing.assert_close(whole.softmax(1), rest.softmax(1), atol=0.01, rtol=0)
