import pytest
import torch
from probe_baselines import PROBES, SOURCE_SHARES, source_then_target

from homing.errors import DataError
from homing.evaluation.baselines import OVERSAMPLING
from homing.rates import Evidence
from homing.rates.learned.probe import log_probabilities, with_bias

NUM_CLASSES = 3


def study(*, seed: int = 0, hidden: int = 40, others: int = 200, wrong: float = 0.2) -> Evidence:
    """A target moved along one axis, some of it hidden in the pool, some labels wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(hidden + others) % NUM_CLASSES
    target_labels = torch.arange(12) % NUM_CLASSES
    matches = torch.arange(hidden + others) < hidden
    source = torch.randn(len(labels), 8, generator=generator)
    target = torch.randn(12, 8, generator=generator)
    for features, classes in ((source, labels), (target, target_labels)):
        features[torch.arange(len(features)), classes] += 3.0
    source[matches, -1] += 4.0
    target[:, -1] += 4.0
    clean = torch.rand(len(labels), generator=generator) >= wrong
    given = torch.where(clean, labels, (labels + 1) % NUM_CLASSES)
    return Evidence(source, given, target, target_labels, NUM_CLASSES, matches=matches, clean=clean)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("target_weight", [OVERSAMPLING, None])
def test_every_method_gives_a_plan_that_is_balanced_within_classes(name, target_weight):
    evidence = study()
    plan = PROBES[name](evidence, seed=1, target_weight=target_weight)
    assert plan.rates.shape == (evidence.num_source,)
    assert plan.target_weight >= 0
    if name not in ("target_only", "sequential"):  # which end on the target alone
        means = torch.stack([plan.rates[evidence.source_labels == label].mean() for label in range(NUM_CLASSES)])
        torch.testing.assert_close(means, torch.ones(NUM_CLASSES))


@pytest.mark.parametrize(
    ("name", "source_counts", "target_weight"),
    [
        ("source_only", True, 0.0),
        ("target_only", False, 1.0),
        ("pooled", True, 1.0),
        ("pooled_oversampled", True, 10.0),
    ],
)
def test_the_plain_ways_train_on_what_they_say(name, source_counts, target_weight):
    plan = PROBES[name](study())
    assert bool((plan.rates == (1.0 if source_counts else 0.0)).all())
    assert plan.target_weight == target_weight


def test_the_oracle_weighs_matching_rows_as_target_images_and_wrong_labels_not_at_all():
    evidence = study()
    rates = PROBES["oracle"](evidence, target_weight=10.0).rates
    assert (rates[~evidence.clean] == 0).all()
    in_class = (evidence.source_labels == 0) & evidence.clean
    lifted, plain = rates[in_class & evidence.matches], rates[in_class & ~evidence.matches]
    torch.testing.assert_close(lifted, 10 * plain[: len(lifted)])


def test_the_oracle_needs_the_truth():
    evidence = study()
    unknown = Evidence(
        evidence.source_features,
        evidence.source_labels,
        evidence.target_features,
        evidence.target_labels,
        NUM_CLASSES,
    )
    with pytest.raises(DataError, match="simulated study"):
        PROBES["oracle"](unknown)


def test_the_density_ratio_lifts_rows_that_look_like_the_target():
    evidence = study(wrong=0.0)
    rates = PROBES["density_ratio"](evidence).rates
    assert rates[evidence.matches].mean() > 2 * rates[~evidence.matches].mean()


def test_the_weight_of_the_target_is_chosen_on_its_folds_when_asked():
    evidence = study()
    weights = {PROBES["pooled_oversampled"](evidence, target_weight=w).target_weight for w in (3.0, None)}
    assert 3.0 in weights
    again = PROBES["pooled_oversampled"](evidence, target_weight=None).target_weight
    assert again == PROBES["pooled_oversampled"](evidence, target_weight=None).target_weight


@pytest.mark.parametrize("name", ["l2rw", "meta_weight_net", "instance"])
def test_what_learns_while_it_trains_turns_wrong_labels_down(name):
    evidence = study(wrong=0.3)
    rates = PROBES[name](evidence, target_weight=10.0).rates
    assert rates[~evidence.clean].mean() < 0.9 * rates[evidence.clean].mean()


def test_the_sequential_share_is_one_of_those_tried_and_the_source_comes_first():
    evidence = study()
    plan = PROBES["sequential"](evidence)
    assert plan.source_share in SOURCE_SHARES
    early, late = (source_then_target(evidence, share) for share in (1.0, 0.5))
    features, labels = with_bias(evidence.target_features), evidence.target_labels
    losses = [torch.nn.functional.nll_loss(log_probabilities(features, probe)[0], labels) for probe in (early, late)]
    assert losses[1] < losses[0]
