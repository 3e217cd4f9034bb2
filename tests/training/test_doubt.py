"""Labels that may be wrong: what the loss makes of them, and how often their rows are drawn."""

from __future__ import annotations

import pytest
import torch
from tensor_inputs import NUM_CLASSES, NUM_SOURCE, NUM_TARGET, fine_tuning, pictures_and_labels, small_model
from torch.nn import functional

from homing.models.parts import batch_norms
from homing.rates.learned.plan import Doubt
from homing.training.head import of_own_side
from homing.training.losses import sample_losses
from homing.training.plan import Phase, TrainingPlan
from homing.training.step import Settings, losses_of
from homing.unpacking import plan_settings
from small_run import small_recipe


def scored(rows=200, classes=5):
    torch.manual_seed(0)
    return 3 * torch.randn(rows, classes, dtype=torch.float64), torch.randint(0, classes, (rows,)), torch.rand(rows)


def by_noise_matrices(logits, labels, right):
    """Forward correction as published, with a noise matrix for each row: rows are true classes, columns labels."""
    num_classes = logits.shape[1]
    losses = []
    for row, label, sure in zip(logits, labels, right.double(), strict=True):
        noise = torch.full((num_classes, num_classes), float((1 - sure) / (num_classes - 1)), dtype=torch.float64)
        noise.fill_diagonal_(float(sure))
        losses.append(-(row.softmax(0) @ noise)[label].log())
    return torch.stack(losses)


def test_a_label_in_doubt_costs_what_forward_correction_says():
    logits, labels, right = scored()
    found = sample_losses(logits, labels, right=right.double())
    torch.testing.assert_close(found, by_noise_matrices(logits, labels, right))


def test_a_label_that_is_right_costs_its_cross_entropy_to_the_last_bit_and_so_does_its_gradient():
    logits, labels, _ = scored()
    ours, plain = (logits.float().requires_grad_() for _ in range(2))
    for one, losses in (
        (ours, sample_losses(ours, labels, right=torch.ones(len(labels)))),
        (plain, functional.cross_entropy(plain, labels, reduction="none")),
    ):
        losses.sum().backward()
        one.losses = losses
    assert torch.equal(ours.losses, plain.losses)
    assert torch.equal(ours.grad, plain.grad)


@pytest.mark.parametrize("right", [1.0, 0.9, 0.2, 1e-7, 0.0])
def test_however_sure_the_model_is_of_whatever_class_losses_and_gradients_are_finite(right):
    logits = torch.tensor([[200.0, 0, 0], [-200.0, 0, 0], [0.0, 0, 0], [80.0, 0, -80]], requires_grad=True)
    losses = sample_losses(logits, torch.zeros(4, dtype=torch.int64), right=torch.full((4,), right))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()


def test_the_surer_the_model_is_of_another_class_the_less_a_doubted_label_counts():
    """Of the gradient of the cross entropy a share is left, which falls to nothing."""
    shares = []
    for other in (0.0, 2.0, 4.0, 8.0):
        logits = torch.tensor([[0.0, other, 0.0]], requires_grad=True)
        (doubted,) = torch.autograd.grad(sample_losses(logits, torch.tensor([0]), right=torch.tensor([0.7])), logits)
        (plain,) = torch.autograd.grad(sample_losses(logits, torch.tensor([0])), logits)
        shares.append(float(doubted.norm() / plain.norm()))
        assert functional.cosine_similarity(doubted, plain).item() == pytest.approx(1, abs=1e-4)
    assert 1 > shares[0] > shares[1] > shares[2] > shares[3]
    assert shares[3] < 0.01


def test_beside_another_set_of_classes_doubt_speaks_for_its_own_alone():
    logits, labels, right = scored(classes=7)
    labels = 3 + labels % 4
    found = sample_losses(of_own_side(logits, labels, split=3), labels, right=right.double())
    torch.testing.assert_close(found, by_noise_matrices(logits[:, 3:], labels - 3, right))


def test_mixed_pictures_mix_doubts_too():
    pictures, labels = pictures_and_labels()
    model, right = small_model().eval(), torch.linspace(0, 1, len(labels))
    torch.manual_seed(4)
    share = torch.distributions.Beta(0.3, 0.3).sample().item()
    logits = model(share * pictures + (1 - share) * pictures.flip(0))
    own, other = (
        sample_losses(logits, *pair) for pair in ((labels, None, right), (labels.flip(0), None, right.flip(0)))
    )
    torch.manual_seed(4)
    _, found = losses_of(model, pictures, labels, mixup=0.3, right=right)
    torch.testing.assert_close(found, share * own + (1 - share) * other)


def doubting_plan(apply="sample", guesses=0, target_weight=2.0):
    rates = torch.cat([torch.full((NUM_SOURCE - guesses,), 1.0), torch.full((guesses,), 0.5)])
    doubt = Doubt(torch.linspace(0, 2, NUM_SOURCE - guesses), torch.linspace(0.1, 1, NUM_SOURCE - guesses))
    phase, classes = Phase(rates, target_weight), torch.zeros(guesses, dtype=torch.int64)
    return TrainingPlan((phase,), apply, guesses=classes, doubt=doubt)


@pytest.mark.parametrize("guesses", [0, 4])
def test_rows_are_drawn_as_the_doubt_says_and_guesses_by_their_rates(guesses):
    plan = doubting_plan(guesses=guesses)
    tuning = fine_tuning(small_model(), plan, Settings(num_steps=300, batch_size=8, learning_rate=1e-5))
    tuning.run()
    expected = torch.cat([plan.doubt.draws, torch.full((guesses,), 0.5), torch.full((NUM_TARGET,), 2.0)])
    seen = tuning.visits / tuning.visits[-NUM_TARGET:].float().mean() * 2
    assert (seen - expected).abs().max() < 0.25  # by chance .1
    assert torch.equal(tuning.rates_now(), plan.phases[0].rates)  # a rate is still what a row counts by itself


def test_a_step_is_that_of_draws_times_doubting_losses_as_written_out_by_autograd():
    pictures, labels = pictures_and_labels()
    ours, plain, plan = small_model(), small_model(), doubting_plan("weight", target_weight=1.0)
    settings = Settings(
        num_steps=1, batch_size=28, optimizer="momentum", learning_rate=0.1, weight_decay=0.0, warmup=0.0
    )
    tuning = fine_tuning(ours, plan, settings)
    tuning.run()
    plain.train()
    for norm in batch_norms(plain):
        norm.eval()
    assert tuning.visits.tolist() == [0] + [1] * (NUM_SOURCE + NUM_TARGET - 1)  # the first row counts nothing
    sure, masses = (torch.cat([part, torch.ones(NUM_TARGET)]) for part in (plan.doubt.right, plan.doubt.draws))
    probabilities = plain(pictures).softmax(1).gather(1, labels[:, None]).squeeze(1)
    losses = -(sure * probabilities + (1 - sure) * (1 - probabilities) / (NUM_CLASSES - 1)).log()
    (masses * losses)[1:].mean().backward()
    for (name, parameter), trained in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(trained, parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6), name


def test_what_is_doubted_belongs_to_what_a_checkpoint_is_of():
    plan, others = doubting_plan(), (Doubt(torch.ones(NUM_SOURCE), torch.linspace(0.1, 1, NUM_SOURCE)), None)
    assert len({plan.digest(), *(TrainingPlan(plan.phases, plan.apply, doubt=other).digest() for other in others)}) == 3


@pytest.mark.parametrize(("trainable", "doubts"), [("all", True), ("last_stage", False), ("head", False)])
def test_a_loss_doubts_where_all_layers_are_trained(tmp_path, trainable, doubts):
    assert plan_settings(small_recipe(tmp_path, f"model.trainable={trainable}")).doubts is doubts
