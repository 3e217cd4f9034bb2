"""Unlabelled images are guessed by a network that was trained without them, for the one that is trained next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from homing.models.inputs import Visit, batches_of
from homing.models.parts import autocast, classifier_of
from homing.pools.order import Rows
from homing.rates.learned.guesses import Guesses, guess_rates
from homing.rates.learned.propagation import propagate
from homing.session import Session
from homing.training.distributed import gather_shares
from homing.training.material import Material

_VIEWS = 4
_BATCH = 64
_BLOCK = 8_192  # images whose features are held at once


@dataclass(frozen=True)
class Teacher:
    """A network that was trained without unlabelled images, and guesses their labels for those that come after it.

    Attributes:
        session: Of the run.
        material: Of the run.
        model: A trained copy of its model, with a linear head.
        precision: fp32 or bf16.
        most_views: Images that it may be asked of altogether, beside the centres.
    """

    session: Session
    material: Material
    model: nn.Module
    precision: str
    most_views: int

    def guesses(self, before: Guesses, target: Rows, target_weight: float) -> Guesses:
        """What it thinks of the unlabelled images; the same in every process.

        Args:
            before: What was thought of them before any training; whether they are of the domain stays as it was.
            target: Rows of the target that are labelled.
            target_weight: How often each of these counts.
        """
        found, problem = self.probabilities(target).max(dim=1), self.material.problem
        rates = guess_rates(
            found.indices,
            found.values,
            before.match,
            target_weight=target_weight,
            source_labels=self.material.labels[problem.source_rows],
            target_labels=self.material.labels[target],
            num_classes=len(problem.classes),
        )
        return Guesses(found.indices, found.values, before.match, rates)

    def probabilities(self, target: Rows) -> Tensor:
        """Of the classes of all unlabelled images, float32 [U, C] on the CPU.

        The mean over the centre of a picture and some augmented views of it, spread over its neighbours in the
        network's own features, among which are the labelled images of the target.

        Args:
            target: Their rows.
        """
        labels, found = self.material.labels[target], []
        unlabelled = self.material.problem.unlabelled_rows
        with self.session.stage("  guess", len(unlabelled)) as advance:
            report = self.session.stoppable(advance)
            known, _ = self._asked(target, 0)
            for rows in batches_of(unlabelled, _BLOCK):
                features, probabilities = self._asked(rows, min(_VIEWS, self.most_views // len(unlabelled)))
                found.append(propagate(probabilities, features, known, labels))
                report(len(rows))
        return torch.cat(found)

    def _asked(self, rows: Rows, views: int) -> tuple[Tensor, Tensor]:
        """Features [m, D] of the centres of some rows, and probabilities [m, C] over their views; both on the CPU."""
        accelerator, inputs = self.session.accelerator, self.material.inputs
        mine = rows[accelerator.process_index :: accelerator.num_processes]
        batches = list(batches_of(mine, _BATCH))
        seen = list(self._outputs(inputs.evaluating(batches)))
        sums = [probabilities for _, probabilities in seen]
        for view in range(views):
            visits = [Visit(0, batch, np.full_like(batch, view)) for batch in batches]
            more = self._outputs(inputs.training(visits))
            sums = [sum_ + probabilities for sum_, (_, probabilities) in zip(sums, more, strict=True)]
        features = gather_shares([features for features, _ in seen], len(rows), accelerator)
        return features, gather_shares(sums, len(rows), accelerator) / (1 + views)

    def _outputs(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """What the head sees of each batch of inputs, and what it makes of it: probabilities."""
        network = self.material.trained_part(self.model).eval()
        seen: list[Tensor] = []
        handle = classifier_of(self.model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            for batch in batches:
                with torch.no_grad(), autocast(self.session.device, self.precision):
                    logits = network(batch)
                yield seen.pop().float().cpu(), logits.float().softmax(dim=1).cpu()
        finally:
            handle.remove()
