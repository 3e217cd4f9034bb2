"""Probabilities that spread over neighbours: what is thought of a cluster puts right what is thought of one image."""

from __future__ import annotations

import pytest
import torch

from homing.rates.learned import propagation
from homing.rates.learned.propagation import propagate


@pytest.fixture
def clusters():
    """Thirty images each in two directions, four of each with known labels, and probabilities that are mostly right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    features = torch.eye(2)[labels].repeat(1, 8) + 0.2 * torch.randn(60, 16, generator=generator)
    right = torch.rand(60, generator=generator) < 0.75
    probabilities = torch.eye(2)[torch.where(right, labels, 1 - labels)] * 0.4 + 0.3
    return probabilities[8:], features[8:], features[:8], labels[:8], labels[8:]


def test_neighbours_put_right_what_a_network_took_for_something_else(clusters):
    *given, truth = clusters
    found = propagate(*given)
    assert (given[0].argmax(dim=1) == truth).float().mean() < 0.85
    assert (found.argmax(dim=1) == truth).float().mean() > 0.95
    assert torch.allclose(found.sum(dim=1), torch.ones(len(found)))


def test_images_that_may_be_neighbours_are_looked_at_some_at_a_time(clusters, monkeypatch):
    *given, truth = clusters
    monkeypatch.setattr(propagation, "_TOGETHER", 20)
    assert (propagate(*given).argmax(dim=1) == truth).float().mean() > 0.95


def test_one_image_has_the_target_for_neighbours(clusters):
    _, features, *known, truth = clusters
    found = propagate(torch.full((1, 2), 0.5), features[:1], *known)
    assert found.argmax() == truth[0]
