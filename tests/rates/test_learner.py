from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from gaussian_domains import NUM_CLASSES, WIDTH, hidden_matches, rare_classes

from homing.errors import DataError, HomingError
from homing.rates import Evidence, learn_rates
from homing.rates.learned.rate_model import class_presence


def part_of(evidence, source_rows, target_rows):
    return replace(
        evidence.with_target(target_rows),
        source_features=evidence.source_features[source_rows],
        source_labels=evidence.source_labels[source_rows],
        matches=None,
        clean=None,
    )


def is_sound(plan, evidence):
    labels = evidence.source_labels.unique()
    means = torch.stack([plan.rates[evidence.source_labels == label].mean() for label in labels])
    assert torch.isfinite(plan.rates).all()
    assert (plan.rates >= 0).all()
    torch.testing.assert_close(means, class_presence(evidence)[labels])
    assert all(len(values) == evidence.num_source for values in plan.descriptors.values())
    assert all(torch.isfinite(values).all() for values in plan.descriptors.values())
    assert sum(row["chosen"] for row in plan.judged) == 1
    return True


def test_hidden_matching_rows_are_lifted():
    evidence = hidden_matches(seed=0)
    plan = learn_rates(evidence)
    assert is_sound(plan, evidence)
    assert plan.rates[evidence.matches].mean() > 1.5 * plan.rates[~evidence.matches].mean()


def test_wrong_labels_are_let_go():
    evidence = hidden_matches(seed=1, hidden=400, others=0, wrong=0.3)
    plan = learn_rates(evidence)
    assert is_sound(plan, evidence)
    assert plan.rates[~evidence.clean].mean() < 0.5 * plan.rates[evidence.clean].mean()


def test_a_training_that_allows_for_wrong_labels_draws_them_more_often_than_rates_say_and_less_than_others():
    evidence = hidden_matches(seed=1, hidden=400, others=0, wrong=0.3)
    plan = learn_rates(evidence)
    rates, draws = (part[~evidence.clean].mean() for part in (plan.rates, plan.doubt.draws))
    assert rates < draws < 0.8 * plan.doubt.draws[evidence.clean].mean()
    means = torch.stack([plan.doubt.draws[evidence.source_labels == label].mean() for label in range(NUM_CLASSES)])
    torch.testing.assert_close(means, torch.ones(NUM_CLASSES))
    assert torch.equal(plan.doubt.right, plan.right)


def test_labels_of_a_class_that_has_few_rows_count_as_right():
    """A probe that has not seen such a row finds its label wrong; a loss that believed it would unlearn the class."""
    evidence = rare_classes(per_class=1)
    plan, rare = learn_rates(evidence), evidence.source_labels >= 6
    assert plan.right[rare].mean() < 0.5  # what the descriptor says
    assert torch.equal(plan.doubt.right[rare], torch.ones(int(rare.sum())))
    assert plan.doubt.draws[rare].std() < 1e-6
    assert torch.equal(plan.doubt.right[~rare], plan.right[~rare])
    larger = rare_classes(per_class=14)
    plan, rare = learn_rates(larger), larger.source_labels >= 6
    assert (plan.doubt.right[rare] >= plan.right[rare]).all()


def test_where_no_label_is_wrong_or_none_is_asked_about_nothing_is_doubted():
    assert learn_rates(hidden_matches(seed=0)).doubt is None
    noisy = hidden_matches(seed=1, hidden=400, others=0, wrong=0.3)
    assert learn_rates(noisy, descriptors=["target_likeness"]).doubt is None


def test_rates_are_uniform_where_nothing_matches_and_it_is_said():
    evidence = hidden_matches(seed=2, hidden=0, shift=4.0)
    plan = learn_rates(evidence)
    assert (plan.rates - 1).abs().max() < 0.05
    assert any("looks like the target" in warning for warning in plan.warnings)
    assert any("uniform" in warning for warning in plan.warnings)


def test_a_pool_that_misleads_hardly_counts_beside_the_target_and_it_is_said():
    evidence = hidden_matches(seed=2, hidden=400, others=200, wrong=1.0, mixed_up=True, shots=10)
    plan = learn_rates(evidence)
    assert float(plan.rates.sum()) < 0.2 * plan.target_weight * evidence.num_target
    assert any("hardly helps" in warning for warning in plan.warnings)
    assert not any("hardly helps" in warning for warning in learn_rates(hidden_matches(seed=2)).warnings)
    assert plan.rates.mean() == pytest.approx(1)  # the target's weight says it, rates stay what they are
    assert learn_rates(evidence, target_weight=3.0).target_weight == 3


def test_rates_that_are_uniform_for_another_reason_than_an_empty_pool_say_which():
    evidence = hidden_matches(seed=4, hidden=20, others=20)  # ten rows of a class
    plan = learn_rates(evidence, target_weight=3.0)
    torch.testing.assert_close(plan.rates, torch.ones(40))
    assert 0 < plan.phi["match_share"] < 1
    (said,) = [warning for warning in plan.warnings if "uniform" in warning]
    assert "although" in said
    assert said.endswith("no class may rest on 10 rows or fewer.")


def test_a_target_whose_labels_make_no_sense_is_told_of():
    evidence = hidden_matches(seed=2)
    assert not any("guessing" in warning for warning in learn_rates(evidence).warnings)
    evidence.target_labels.copy_(torch.arange(24) // 6)  # each label now falls on all classes alike
    assert any("guessing" in warning for warning in learn_rates(evidence).warnings)


def test_wrong_labels_of_the_target_are_doubted():
    evidence = hidden_matches(seed=3, hidden=400, others=100)
    wrong = torch.tensor([1, 6, 11, 16, 21])
    assert len(learn_rates(evidence).doubted) <= 2
    evidence.target_labels[wrong] = (evidence.target_labels[wrong] + 2) % NUM_CLASSES
    doubted = {row for row, _ in learn_rates(evidence).doubted}
    assert len(doubted & set(wrong.tolist())) >= 3
    assert len(doubted - set(wrong.tolist())) <= 2


def test_classes_that_the_target_lacks_are_told_of():
    evidence = hidden_matches(seed=3)
    plan = learn_rates(evidence.with_target(evidence.target_labels < 3))
    assert plan.phi["absent_class_rate"] == pytest.approx(3 / 19)  # (0 + 1) / (18 + 1), over one class, times 3
    assert any("1 of 4 classes have no target image" in warning for warning in plan.warnings)
    assert learn_rates(evidence).phi["absent_class_rate"] == 1


def test_that_absent_classes_count_less_is_said_only_where_they_do():
    evidence = hidden_matches(seed=3)
    plan = learn_rates(evidence.with_target(evidence.target_labels < 3), descriptors=())
    assert torch.equal(plan.rates, torch.ones_like(plan.rates))
    assert plan.phi["absent_class_rate"] == 1
    assert any("source samples count as much as others" in warning for warning in plan.warnings)


def test_the_same_seed_gives_the_same_plan():
    evidence = hidden_matches(seed=3, wrong=0.2)
    first, second = learn_rates(evidence, seed=7), learn_rates(evidence, seed=7)
    assert torch.equal(first.rates, second.rates)
    assert first.phi == second.phi
    assert first.judged == second.judged


def test_lists_are_as_good_as_tensors():
    evidence = hidden_matches(seed=4)
    names = ("source_features", "source_labels", "target_features", "target_labels")
    lists = Evidence(**{name: getattr(evidence, name).tolist() for name in names}, num_classes=NUM_CLASSES)
    assert torch.equal(learn_rates(lists).rates, learn_rates(evidence).rates)
    with pytest.raises(DataError, match=r"source_features are no numbers, as many for each row .*inhomog"):
        replace(lists, source_features=[[1.0], [1.0, 2.0]])


KINDS = {
    "float64, with a graph": lambda t: t.double().requires_grad_() if t.is_floating_point() else t.to(torch.uint8),
    "frames": lambda t: pandas.DataFrame(t.numpy()) if t.ndim == 2 else pandas.Series(t.numpy(), t.numpy()[::-1]),
    "arrays that run backwards": lambda t: t.numpy()[::-1].copy()[::-1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_any_kind_are_taken(kind):
    evidence = hidden_matches(seed=4)
    names = ("source_features", "source_labels", "target_features", "target_labels")
    given = Evidence(
        **{name: KINDS[kind](getattr(evidence, name)) for name in names}, num_classes=np.int64(NUM_CLASSES)
    )
    assert torch.equal(learn_rates(given, seed=np.int64(0)).rates, learn_rates(evidence).rates)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("source_labels", torch.zeros(600), r"source_labels are torch.float32; give positions in the list of classes"),
        ("target_labels", torch.ones(24).bool(), r"target_labels are torch.bool; give positions"),
        ("target_labels", None, r"target_labels are object; give positions"),
        ("source_features", [["a"]] * 600, r"source_features are no numbers, .*'a'"),
        ("num_classes", 4.0, r"num_classes is 4.0; allowed: whole numbers, 1 and more"),
    ],
)
def test_what_are_no_features_or_labels_is_refused_in_a_sentence(name, given, message):
    with pytest.raises(HomingError, match=message):
        replace(hidden_matches(seed=4), **{name: given})


def test_a_given_target_weight_is_kept():
    plan = learn_rates(hidden_matches(seed=4), target_weight=7.0)
    assert plan.target_weight == 7.0
    assert {row["target_weight"] for row in plan.judged} == {7.0}


def test_without_descriptors_rates_are_uniform_and_the_weight_is_still_judged():
    plan = learn_rates(hidden_matches(seed=5), descriptors=())
    assert torch.equal(plan.rates, torch.ones_like(plan.rates))
    assert len({row["target_weight"] for row in plan.judged}) > 1


def test_truth_is_not_looked_at():
    evidence = hidden_matches(seed=6, wrong=0.2)
    blind = replace(evidence, matches=None, clean=None)
    assert torch.equal(learn_rates(evidence).rates, learn_rates(blind).rates)


@pytest.mark.parametrize(
    ("case", "source_rows", "target_rows"),
    [
        ("a class is missing in the target", range(600), [r for r in range(24) if r % NUM_CLASSES]),
        ("one target image in a class", range(600), [0, *(r for r in range(24) if r % NUM_CLASSES)]),
        ("two shots", range(600), range(8)),
        ("one class has a single source row", [0, *(r for r in range(600) if r % NUM_CLASSES)], range(24)),
        ("the target is larger than the source", range(12), range(24)),
        ("one class only", range(0, 600, NUM_CLASSES), range(0, 24, NUM_CLASSES)),
        ("the target's class is missing in the source", [r for r in range(600) if r % NUM_CLASSES], range(24)),
    ],
)
def test_odd_pools_are_planned_for(case, source_rows, target_rows):
    evidence = part_of(hidden_matches(seed=8, wrong=0.1), list(source_rows), torch.tensor(list(target_rows)))
    assert is_sound(learn_rates(evidence), evidence), case


@pytest.mark.parametrize("num_source", [1, 2, 5])
def test_the_smallest_pools_are_planned_for(num_source):
    evidence = part_of(hidden_matches(seed=8), list(range(num_source)), torch.arange(2))
    assert is_sound(learn_rates(evidence, folds=2), evidence)


def test_a_run_with_one_class_in_its_list_is_planned_for():
    generator = torch.Generator().manual_seed(0)
    evidence = Evidence(
        source_features=torch.randn(40, WIDTH, generator=generator),
        source_labels=torch.zeros(40, dtype=torch.int64),
        target_features=torch.randn(6, WIDTH, generator=generator),
        target_labels=torch.zeros(6, dtype=torch.int64),
        num_classes=1,
    )
    assert is_sound(learn_rates(evidence), evidence)


def test_a_target_equal_to_the_source_gives_nearly_uniform_rates():
    pool = hidden_matches(seed=9, hidden=0, others=200)
    evidence = replace(pool, target_features=pool.source_features, target_labels=pool.source_labels)
    plan = learn_rates(evidence)
    assert plan.effective_sample_size > 0.8 * evidence.num_source


def test_a_thinned_source_keeps_classes_and_matching_rows_in_their_shares():
    evidence = hidden_matches(seed=9, hidden=60, others=1140)
    thinned = evidence.thinned(300, by=evidence.matches.float())
    assert thinned.num_source == 300
    assert torch.bincount(thinned.source_labels).tolist() == [75] * NUM_CLASSES
    assert thinned.matches.sum() == pytest.approx(15, abs=2)


def test_a_pool_too_large_to_judge_on_gives_much_the_same_rates(monkeypatch):
    evidence = hidden_matches(seed=0, hidden=160, others=1040)
    whole = learn_rates(evidence)
    monkeypatch.setattr("homing.rates.learned.learner.JUDGED_ROWS", 600)
    thinned = learn_rates(evidence)
    for plan in (whole, thinned):
        assert is_sound(plan, evidence)
        assert plan.rates[evidence.matches].mean() > 1.5 * plan.rates[~evidence.matches].mean()


@pytest.mark.parametrize("value", [1.0, 1e30])
def test_constant_features_are_no_trouble(value):
    source, target = torch.full((600, WIDTH), value), torch.full((24, WIDTH), value)
    evidence = replace(hidden_matches(seed=10), source_features=source, target_features=target)
    plan = learn_rates(evidence)
    assert is_sound(plan, evidence)
    assert torch.isfinite(plan.scorer(target, evidence.target_labels).rates).all()


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_unit_of_features_does_not_matter(factor):
    evidence = hidden_matches(seed=0)
    scaled = replace(
        evidence,
        source_features=evidence.source_features * factor,
        target_features=evidence.target_features * factor,
    )
    # as far as the rounding of float32 and where searches end
    torch.testing.assert_close(learn_rates(scaled).rates, learn_rates(evidence).rates, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("value", [1e10, 1e30])
def test_target_rows_nowhere_near_the_source_are_refused(value):
    evidence = hidden_matches(seed=0)
    evidence.target_features[5, 3] = value
    with pytest.raises(DataError, match=r"features of 1 of 24 target rows lie more than 1,000,000 .*first: row 5"):
        learn_rates(evidence)


@pytest.mark.parametrize("role", ["source", "target"])
def test_features_that_are_not_finite_are_refused(role):
    evidence = hidden_matches(seed=11)
    broken = getattr(evidence, f"{role}_features").clone()
    broken[3, 2] = torch.nan
    with pytest.raises(DataError, match=f"features of 1 {role} row are not finite .first: row 3."):
        replace(evidence, **{f"{role}_features": broken})


def test_fewer_target_images_than_folds_are_refused():
    evidence = hidden_matches(seed=0).with_target(torch.arange(4))
    with pytest.raises(DataError, match="4 labelled images, fewer than the 5 folds"):
        learn_rates(evidence)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"descriptors": ("target_likenes",)}, "Unknown descriptor 'target_likenes'"),
        ({"folds": 1}, "folds is 1; allowed: whole numbers, 2 and more"),
        ({"target_weight": -1.0}, "at least 0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        learn_rates(hidden_matches(seed=0), **arguments)
