"""What the reader must know of the pools before the figures."""

import re
import shutil

import torch
from gaussian_domains import hidden_matches

from drawn_pools import draw_pool
from homing.outputs.pool_warnings import label_warnings, mixed_up_warnings, overlap_warnings, target_warnings
from homing.pools.problem import open_problem
from homing.rates.learned.learner import learn_rates
from homing.rates.learned.plan import RatePlan
from homing.recipe.data import Data, PoolSpec


def problem_of(root, target, test):
    draw_pool(root / "source", {"cat": 6, "dog": 6, "emu": 6}, seed=0)
    draw_pool(root / "target", target, seed=1)
    draw_pool(root / "test", test, seed=2)
    return open_problem(Data(**{role: PoolSpec(path=str(root / role)) for role in ("source", "target", "test")}))


def test_a_target_of_enough_images_in_every_class_is_not_warned_of(tmp_path):
    problem = problem_of(tmp_path, {"cat": 5, "dog": 5, "emu": 5}, {"cat": 2})
    assert target_warnings(problem) == []
    assert overlap_warnings(problem) == []


def test_a_small_target_a_single_image_and_an_absent_class_are_told(tmp_path):
    absent, single, small = target_warnings(problem_of(tmp_path, {"cat": 4, "dog": 1}, {"cat": 2}))
    assert absent == "The target has no image of 1 of 3 classes: 'emu'."
    assert single.startswith("The target has a single image of 'dog': its folds cannot judge")
    assert small.startswith("The target is small: 5 images in 2 classes.")


def test_pictures_that_two_roles_share_are_counted_and_their_harm_is_said(tmp_path):
    root, classes = tmp_path, {"cat": 5, "dog": 5}
    problem_of(root, classes, {"cat": 2})
    for number in range(2):
        shutil.copy(root / f"target/cat/00{number}.png", root / f"test/cat/copy{number}.png")
    shutil.copy(root / "source/emu/003.png", root / "target/dog/odd.png")
    problem = open_problem(Data(**{role: PoolSpec(path=str(root / role)) for role in ("source", "target", "test")}))
    first, second = overlap_warnings(problem)
    assert first == (
        "2 pictures are both in the target and in the test (first: cat/000.png and cat/copy0.png): the model was"
        " trained on them, so the figures above are too good."
    )
    assert second.startswith("1 pictures are both in the source and in the target (first: emu/003.png and dog/odd.png)")


def test_labels_that_the_folds_contradict_are_listed_by_name(tmp_path):
    problem = problem_of(tmp_path, {"cat": 5, "dog": 5, "emu": 5}, {"cat": 2})
    few = RatePlan(torch.ones(18), 1.0, doubted=[(0, 1), (5, 2)])
    many = RatePlan(torch.ones(18), 1.0, doubted=[(7, 0), (0, 1), (5, 2)])
    assert label_warnings(few, problem.target, problem.classes) == []
    (warning,) = label_warnings(many, problem.target, problem.classes)
    assert warning.startswith(
        "The target's folds disagree with 3 of its 15 labels: dog/002.png (dog, rather cat), cat/000.png (cat, rather"
    )


def test_classes_that_the_source_mixes_up_are_told_by_name():
    classes = ("ant", "bee", "cat", "dog")
    mixed_up, common, right = (
        learn_rates(hidden_matches(seed=0, others=1500, wrong=wrong, mixed_up=mixed_up), folds=2)
        for wrong, mixed_up in ((0.3, True), (0.3, False), (0.0, False))
    )
    (warning,) = mixed_up_warnings(mixed_up, classes)
    assert warning.startswith("The source's labels are mixed up: about ")
    named = set(re.findall("[a-z]+ under [a-z]+", warning))
    assert len(named) > 1
    assert named <= {"ant under bee", "bee under cat", "cat under dog", "dog under ant"}
    assert mixed_up_warnings(common, classes) == []
    assert mixed_up_warnings(right, classes) == []
