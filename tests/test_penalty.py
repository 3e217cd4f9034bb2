"""The penalty of a head that is the whole model: chosen on rows that are left out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy

from homing.rates.learned.work import ALONE, reporting
from homing.training.head import HEAD_RIDGE, probe_head
from homing.training.plan import Phase

FIRST_OF_TEST, NUM_TARGET = 700, 50


class Head(nn.Module):
    """A timm model of which nothing but the head is left."""

    def __init__(self, width, classes):
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def get_classifier(self):
        return self.fc


@pytest.fixture(scope="module")
def scans():
    """Handwritten digits as features of about unit mean square, shuffled: [1797, 64] and their classes."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    features = torch.tensor(data.data[order], dtype=torch.float32)
    features -= features.mean(dim=0)
    return features / features.square().mean().sqrt(), torch.tensor(data.target[order])


def started(features, labels, ridge, sets=None, num_target=NUM_TARGET, outputs=10, work=ALONE):
    """A head that starts from a probe of these rows, of which the last are the target's."""
    head = Head(features.shape[1], outputs)
    phase = Phase(torch.ones(len(labels) - num_target), 1.0)
    known = SimpleNamespace(rows=lambda rows: features[rows].clone())
    probe_head(head, known, np.arange(len(labels)), labels, phase, ridge, sets=sets, work=work)
    return head.fc


def loss_of(head, features, labels):
    with torch.no_grad():
        return float(cross_entropy(head(features), labels))


def regressions(features, labels, test, answers):
    """Loss and accuracy on the test of scikit-learn's, by penalty."""
    for strength in 10.0 ** np.arange(-5, 3):
        model = LogisticRegression(C=strength, max_iter=2000).fit(features.numpy(), labels.numpy())
        logits = torch.tensor(model.predict_log_proba(test.numpy()))
        yield float(cross_entropy(logits, answers)), accuracy(logits, answers)


def accuracy(logits, answers):
    return float((logits.argmax(dim=1) == answers).float().mean())


def test_a_head_is_as_good_as_the_best_regression(scans):
    features, labels = scans
    known, test = slice(FIRST_OF_TEST), slice(FIRST_OF_TEST, None)
    best = min(loss for loss, _ in regressions(features[known], labels[known], features[test], labels[test]))
    assert loss_of(started(features[known], labels[known], None), features[test], labels[test]) < best + 0.02
    assert loss_of(started(features[known], labels[known], HEAD_RIDGE), features[test], labels[test]) > best + 0.2


def test_wrong_labels_are_not_learned_by_heart(scans):
    features, labels = scans
    known, test = slice(FIRST_OF_TEST), slice(FIRST_OF_TEST, None)
    wrong = torch.rand(FIRST_OF_TEST, generator=torch.Generator().manual_seed(0)) < 0.4
    given = torch.where(wrong, (labels[known] + 1 + torch.arange(FIRST_OF_TEST) % 9) % 10, labels[known])
    found = [right for _, right in regressions(features[known], given, features[test], labels[test])]
    with torch.no_grad():
        right = accuracy(started(features[known], given, None)(features[test]), labels[test])
    assert right > max(found) - 0.03
    assert right > found[-1] + 0.05  # that learns them


def test_it_does_not_depend_on_the_scale_of_features(scans):
    features, labels = scans[0][:FIRST_OF_TEST], scans[1][:FIRST_OF_TEST]
    test, answers = scans[0][FIRST_OF_TEST:], scans[1][FIRST_OF_TEST:]
    ours, theirs = started(features, labels, None), started(features * 50, labels, None)
    assert loss_of(theirs, test * 50, answers) == pytest.approx(loss_of(ours, test, answers), abs=0.02)


def test_copies_do_not_weaken_it(scans):
    """A fit that has seen a copy of a row that is left out finds every weaker penalty better."""
    features, labels = scans[0][:200], scans[1][:200]
    copies = torch.arange(200).repeat(6)
    test, answers = scans[0][FIRST_OF_TEST:], scans[1][FIRST_OF_TEST:]
    noisy = torch.where(torch.arange(200) % 3 == 0, (labels + 1) % 10, labels)
    once = loss_of(started(features, noisy, None), test, answers)
    assert loss_of(started(features[copies], noisy[copies], None), test, answers) == pytest.approx(once, abs=0.1)


def test_sets_of_labels_are_fitted_label_by_label(scans):
    features, sets = scans[0], torch.stack([scans[1] % 2 == 0, scans[1] > 4], dim=1)
    known, test = slice(FIRST_OF_TEST), slice(FIRST_OF_TEST, None)
    head = started(features[known], torch.arange(FIRST_OF_TEST), None, sets=sets[known], outputs=2)
    with torch.no_grad():
        right = ((head(features[test]) > 0) == sets[test]).float().mean()
    assert right > 0.87


@pytest.mark.parametrize("count", [3, 9, 12])
def test_few_rows_are_enough(scans, count):
    head = started(scans[0][:count], scans[1][:count], None, num_target=2)
    assert torch.isfinite(head.weight).all()
    assert head.weight.abs().max() > 0


def test_the_start_tells_how_far_it_is(scans):
    features, labels = (part[:FIRST_OF_TEST] for part in scans)
    shares = []
    started(features, labels, None, work=reporting(shares.append))
    assert shares == sorted(shares)
    assert len(shares) > 20
    assert 0.7 < shares[-1] <= 1


def test_the_start_ends_where_a_stop_is_asked_for(scans):
    features, labels = (part[:FIRST_OF_TEST] for part in scans)

    def stop(share):
        if share > 0.1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        started(features, labels, None, work=reporting(stop))
