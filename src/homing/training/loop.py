"""The training loop: the same for every method, every baseline and every part of a model that is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice, tee
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.errors import DivergedError, Interrupted
from homing.models.inputs import Inputs
from homing.models.parts import autocast, set_training_mode
from homing.pools.order import Rows, key_to_seed
from homing.training.average import running_average
from homing.training.checkpoint import Checkpoint
from homing.training.distributed import anywhere, everywhere, over_processes, pool_statistics
from homing.training.divergence import divergence
from homing.training.effective import EffectiveSize
from homing.training.epoch import Batch, Epoch, ExpectedVisits, draw_counts, open_epoch
from homing.training.online import Online
from homing.training.optimizer import build_schedule, optimizer_from_plain, optimizer_of, optimizer_to_plain
from homing.training.plan import TrainingPlan
from homing.training.records import Checkpoints, Record, Tally, telling_what_is_saved
from homing.training.row_map import RowMap, row_keys
from homing.training.step import Settings, gradient_norm, losses_of, sent


class FineTuning:
    """One fine-tuning of a model by a plan.

    Args:
        model: What is trained, on the accelerator's device, its frozen parts frozen.
        inputs: Pictures or features by row.
        labels: int64 [N + n]: N rows of the source, unlabelled ones under guesses last among them; n of the target.
        plan: How much each row counts, and which of them are guessed; metrics have those apart.
        settings: How to step.
        accelerator: Device and processes.
        online: Learns of single samples while training; None where the plan does not.
        checkpoints: Where to save and resume; None for neither.
        record: Called with one row of metrics every few steps.
        names: Id of a row, for messages.
        keys: Makes the `row_keys` of all rows when they are first needed; None: out of `names`.
        split: As in `of_own_side`: the source's classes stand behind the target's.
        sets: As in `sample_losses`; None where a row is of one class.
        stop_asked: Whether to save and stop after the step at hand.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        labels: Tensor,
        plan: TrainingPlan,
        settings: Settings,
        accelerator: Accelerator,
        *,
        online: Online | None = None,
        checkpoints: Checkpoints | None = None,
        record: Record | None = None,
        names: Callable[[int], str] = str,
        keys: Callable[[], Tensor] | None = None,
        split: int | None = None,
        sets: Tensor | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        # what is trained, and how
        self.raw_model, self.inputs, self.plan, self.settings = model, inputs, plan, settings
        self.labels, self.split = labels.to(accelerator.device), split
        known = (sets, plan.right(len(labels)))
        self.sets, self.right = (None if part is None else part.to(accelerator.device) for part in known)
        self.num_source, self.num_guessed = len(plan.phases[0].rates), len(plan.guesses)
        self.num_labelled = self.num_source - self.num_guessed  # of the source proper, the first rows
        self.accelerator, self.online, self.names, self._make_keys = accelerator, online, names, keys
        self.optimizer = optimizer_of(model, settings)
        self.schedule = build_schedule(self.optimizer, settings)
        self.average = running_average(model, settings, plan.last_phase_start(settings.num_steps))
        self.model = over_processes(model, accelerator)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if online is not None:
            online.observer.attach(model, self.optimizer)
        # where it is
        self.step, self.epoch, self.epoch_start = 0, 0, 0
        self.counts: Tensor | None = None  # of the epoch at hand
        self.epoch_visits = 1
        self.visits = torch.zeros(len(labels), dtype=torch.int32)
        roles = ("source", "target", "unlabelled")[: 2 + (self.num_guessed > 0)]
        self.tally = Tally(accelerator.device, roles, self.sets)
        # what it leaves
        self.checkpoints, self.record, self.stop_asked = checkpoints, record, stop_asked
        self.saved_at: int | None = None  # step of the newest checkpoint
        self._asked = False  # whether any process was asked to stop before the step at hand
        self._effective = EffectiveSize(self.num_labelled, settings.batch_size, moves=online is not None)

    def run(self, advance: Callable[[int], None] = lambda steps: None) -> None:
        """Train to the last step, and save it; with a running average, the model ends with its weights.

        Raises:
            DivergedError: A loss or gradient is not finite; the model is as it was before that step.
            Interrupted: A stop was asked for; a checkpoint is saved.
        """
        self.restore()
        began = self.step
        advance(began)
        set_training_mode(self.model, self.settings.batch_norm)
        with telling_what_is_saved(self.checkpoints, lambda: self.saved_at, self.settings.num_steps):
            while self.step < self.settings.num_steps:
                epoch = self.open_epoch()
                for batch, inputs in self.batches(epoch):
                    self.take_step(batch, inputs)
                    self.report()
                    self.save_if_due()
                    advance(1)
                if self.step < self.settings.num_steps:  # where it is prolonged it goes on within the epoch
                    self.end_epoch()
            self.pool_statistics()
            if self.step > began:
                self.save()
        if self.average is not None:
            self.raw_model.load_state_dict(self.average.module.state_dict())

    def take_step(self, batch: Batch, inputs: Iterable[Tensor]) -> None:
        """One step of the optimizer on one global batch."""
        # 1. a step's randomness depends on nothing but its number
        torch.manual_seed(key_to_seed(self.settings.seed, self.step, self.accelerator.process_index))
        self.schedule.step_update(self.step)
        self.refresh_direction(batch)
        # 2. the gradient, and while it is computed the alignments
        for part, tensors in zip(batch.parts, self.rehearsed(batch, inputs), strict=True):
            self.backward(part.rows, tensors, batch, last=part is batch.parts[-1])
        # 3. nothing that is not finite may reach the model
        norm = gradient_norm(self.trained, self.settings.clip_norm)
        self.stop_if_not_finite(norm, batch)
        # 4. the step, and what was learned of the rates
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.raw_model, self.step + 1)
        if self.online is not None and self.online.is_due(self.step):
            self.online.learn(batch.most_rows(self.accelerator.num_processes))
        self.visits.index_add_(0, torch.from_numpy(batch.everyone), torch.ones(len(batch.everyone), dtype=torch.int32))
        self.step += 1

    # ---- the plan ----------------------------------------------------------------------------------------------

    @cached_property
    def keys(self) -> Tensor:
        """A digest of each row's role and id, int64 [rows, 2]: by it a checkpoint's rows are known again."""
        if self._make_keys is not None:
            return self._make_keys()
        return row_keys([self.names(row) for row in range(len(self.labels))], self.num_labelled, self.num_guessed)

    def rates_now(self) -> Tensor:
        """Rate of each of the N rows at this step: the plan's, times what each instance learned; float32 [N]."""
        phase, _ = self.plan.phase_at(self.step, self.settings.num_steps)
        return phase.rates if self.online is None else phase.rates * self.online.rates()

    def effective_sample_size(self) -> float:
        """That of `rates_now`, of rows with labels of their own."""
        _, phase_end = self.plan.phase_at(self.step, self.settings.num_steps)
        return self._effective.at(self.step, phase_end, lambda: self.rates_now()[: self.num_labelled])

    def gradients(self) -> int:
        """Gradients of single images that were evaluated so far: of every visit and pass, and of the guide."""
        visited = int(self.visits.sum()) * self.plan.passes
        return visited + (0 if self.online is None else self.online.observer.guide.gradients(self.step))

    def alignments(self) -> Tensor | None:
        """Running alignment of each source sample with the target, float32 [N]; None where none was observed."""
        return None if self.online is None else self.online.alignments()

    def open_epoch(self) -> Epoch:
        """The order of the epoch at hand, drawn from the rates as they stood when it began."""
        if self.plan.phase_at(self.epoch_start, self.settings.num_steps)[1] <= self.step:
            self.end_epoch()  # saved just before another phase began
        phase, _ = self.plan.phase_at(self.step, self.settings.num_steps)
        if self.counts is None:
            if not everywhere(self.accelerator, self.rates_now().isfinite().all()):
                raise self.divergence("rates of source samples are not finite", [])
            moved = None if self.online is None else self.online.draws()
            draws = self.plan.draws(phase) if moved is None else self.plan.draws(phase) * moved
            num_target = len(self.labels) - self.num_source
            expected = ExpectedVisits(draws.numpy(), num_target, phase.target_weight, self.plan.apply)
            self.counts = torch.from_numpy(draw_counts(expected, self.epoch, seed=self.settings.seed))
        epoch = open_epoch(
            self.counts.numpy(), self.epoch, batch_size=self.settings.batch_size, seed=self.settings.seed
        )
        self.epoch_visits = len(epoch.order)
        return epoch

    def end_epoch(self) -> None:
        """The next one is drawn from the rates as they are then."""
        self.epoch, self.epoch_start, self.counts = self.epoch + 1, self.step, None

    def batches(self, epoch: Epoch) -> Iterator[tuple[Batch, Iterator[Tensor]]]:
        """What is left of the epoch, not past its phase, each batch with the model's inputs."""
        phase_end = self.plan.phase_at(self.step, self.settings.num_steps)[1]
        done = self.step - self.epoch_start
        batches = epoch.batches(
            done,
            done + phase_end - self.step,
            accumulate=self.settings.accumulate,
            rank=self.accelerator.process_index,
            num_ranks=self.accelerator.num_processes,
        )
        here, ahead = tee(batches)  # inputs are read ahead of the step at hand
        tensors = self.inputs.training(part for batch in ahead for part in batch.parts)
        for batch in here:
            yield batch, islice(tensors, len(batch.parts))

    # ---- the step ----------------------------------------------------------------------------------------------

    def refresh_direction(self, batch: Batch) -> None:
        """The target's gradient, where this step's alignments need it; it is the same in every process."""
        try:
            if self.online is not None:
                self.online.observer.guide.refresh(self.step)
        except DivergedError as error:
            raise self.divergence(str(error), batch.rows) from error

    def rehearsed(self, batch: Batch, inputs: Iterable[Tensor]) -> Iterable[Tensor]:
        """The inputs of a step, after a pass over them where the step's weights depend on all of them."""
        online = self.online
        if online is None or not (online.rehearses or (online.foresees and len(batch.parts) > 1)):
            return inputs
        kept, foreseen = list(inputs), [torch.empty(0)]
        for part, tensors in zip(batch.parts, kept, strict=True):
            index = sent(torch.from_numpy(part.rows), self.accelerator.device)
            if not online.rehearses:
                with torch.no_grad(), autocast(self.accelerator.device, self.settings.precision):
                    losses = self.forward(tensors, index)[1]
                foreseen.append(losses.float().cpu()[torch.from_numpy(part.rows < self.num_source)])
                continue
            with online.observer.observe(part.rows, idle=batch.idle) as alignment:
                with autocast(self.accelerator.device, self.settings.precision):
                    losses = self.forward(tensors, index)[1]
                alignment.losses(losses).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        if online.rehearses:
            online.learn(batch.most_rows(self.accelerator.num_processes))
        else:
            online.foresee(torch.cat(foreseen[: 1 if batch.idle else None]))
        return kept

    def backward(self, rows: Rows, tensors: Tensor, batch: Batch, *, last: bool) -> None:
        """Forward and backward of one part; gradients add up over parts and processes to the global mean."""
        index = sent(torch.from_numpy(rows), self.accelerator.device)
        with contextlib.ExitStack() as stack:
            if not last and self.accelerator.num_processes > 1:
                stack.enter_context(cast(Any, self.model).no_sync())
            online = self.online if self.online is not None and self.online.is_due(self.step) else None
            alignment = (
                stack.enter_context(online.observer.observe(rows, idle=batch.idle)) if online is not None else None
            )
            with autocast(self.accelerator.device, self.settings.precision):
                logits, losses = self.forward(tensors, index)
            if alignment is not None:
                alignment.losses(losses)
            masses = self.masses(rows, losses, batch.idle)
            # DDP averages over processes, hence the factor: together they give the mean over the global batch
            loss = (masses * losses).sum() * (self.accelerator.num_processes / len(batch.everyone))
            loss.backward()
        if not batch.idle:
            is_target, is_own = index >= self.num_source, index < self.num_labelled
            roles = is_target + 2 * ~(is_target | is_own)  # as the tally numbers them
            self.tally.add(losses, logits, self.labels[index], roles)

    def forward(self, tensors: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] and the loss of each sample [B], in float32, of the rows int64 [B] on the device."""
        labels, right = self.labels[index], None if self.right is None else self.right[index]
        mixup = self.settings.mixup
        return losses_of(self.model, tensors, labels, mixup=mixup, split=self.split, sets=self.sets, right=right)

    def masses(self, rows: Rows, losses: Tensor, idle: bool) -> Tensor:
        """What the loss of each row is multiplied by; float32 [B]."""
        masses, index = torch.ones(len(rows)), torch.from_numpy(rows)
        if self.plan.apply == "weight":
            phase, _ = self.plan.phase_at(self.step, self.settings.num_steps)
            places = (index < self.num_source).nonzero().squeeze(1)
            masses[places] = self.plan.draws(phase)[index[places]]
            if self.online is not None:  # idle processes too: weights may be scaled over all of them
                of_source = losses.detach()[sent(places, self.accelerator.device)]
                masses[places] *= self.online.weights(index[places], of_source, idle=idle)
        return sent(masses.zero_() if idle else masses, self.accelerator.device)

    def stop_if_not_finite(self, norm: Tensor, batch: Batch) -> None:
        """The one synchronisation of a step: losses, gradient and alignments finite, in every process."""
        trouble = None if self.online is None else self.online.observer.trouble
        broken = ~(torch.isfinite(norm) & self.tally.last_finite() & (trouble is None))
        # whether to stop is asked in the same message; a process alone answers that at the end of the step
        found, self._asked = anywhere(
            self.accelerator, broken, self.accelerator.num_processes > 1 and self.stop_asked()
        )
        if not found:
            self.tally.settle()
            return
        self.optimizer.zero_grad(set_to_none=True)
        raise self.divergence("a loss, gradient or alignment is not finite", batch.rows, float(norm), trouble)

    def divergence(
        self, what: str, rows: Iterable[int], norm: float | None = None, trouble: str | None = None
    ) -> DivergedError:
        """The error that ends a run before an update; all processes call this together."""
        samples = [self.names(int(row)) for row in rows]
        return divergence(self.accelerator, self.step + 1, what, samples, self.tally, norm=norm, trouble=trouble)

    # ---- what it leaves ----------------------------------------------------------------------------------------

    def report(self) -> None:
        """A row of metrics every few steps and at the end."""
        if self.record is None or not self.record.is_due(self.step, self.settings.num_steps):
            return
        self.record.write(
            step=self.step,
            epoch=round(self.epoch + (self.step - self.epoch_start) * self.settings.batch_size / self.epoch_visits, 4),
            learning_rate=max(group["lr"] for group in self.optimizer.param_groups),
            effective_sample_size=self.effective_sample_size(),
            **self.tally.take(self.accelerator),
        )

    def save_if_due(self) -> None:
        """A checkpoint every so many steps, and when a stop was asked for in any process."""
        asked = self._asked if self.accelerator.num_processes > 1 else self.stop_asked()
        where, kept = "; nothing was saved", self.checkpoints
        if kept is not None:
            if asked or (self.step % kept.every == 0 and self.step < self.settings.num_steps):
                self.save()
            where = f", saved in {kept.folder}; go on with --resume"
        if asked:
            raise Interrupted(f"stopped after step {self.step} of {self.settings.num_steps}{where}")

    def save(self) -> None:
        """A checkpoint of this step, where they are wanted."""
        if self.checkpoints is not None:
            self.pool_statistics()
            self.checkpoints.save(self)
            self.saved_at = self.step

    def restore(self) -> None:
        """Go on from the newest checkpoint, where there is one; rows of metrics of later steps go."""
        if self.checkpoints is None:
            return
        if self.checkpoints.restore(self):
            self.saved_at = self.step
        if self.record is not None:
            self.record.cut(self.step)

    def pool_statistics(self) -> None:
        """Batch norms that were trained hold the statistics of all processes from here on."""
        if self.settings.batch_norm == "train":
            for model in (self.raw_model, *([] if self.average is None else [self.average.module])):
                pool_statistics(model, self.accelerator)

    # ---- for a checkpoint --------------------------------------------------------------------------------------

    def state(self) -> Checkpoint:
        """All that is needed to go on; all processes call it together."""
        counts = torch.empty(0, dtype=torch.int32) if self.counts is None else self.counts
        tensors = {
            "model": dict(self.raw_model.state_dict()),
            "loop": {
                "counts": counts,
                "sums": self.tally.over_processes(self.accelerator),
                "visits": self.visits,
                "keys": self.keys,
            },
        }
        tensors["optimizer"], optimizer = optimizer_to_plain(self.optimizer)
        if self.average is not None:
            tensors["ema"] = dict(self.average.module.state_dict())
        if self.online is not None:
            tensors["rates"] = self.online.state()
        state = {"step": self.step, "epoch": self.epoch, "epoch_start": self.epoch_start, "optimizer": optimizer}
        return Checkpoint(tensors, state | {"effective": self._effective.state()})

    def load(self, checkpoint: Checkpoint, rows: RowMap) -> None:
        """Undo `state`, perhaps of other rows.

        Args:
            checkpoint: From `state` of a fine-tuning that was built the same way.
            rows: Which of its rows each of this run's is.
        """
        tensors, state, loop = checkpoint.tensors, checkpoint.state, checkpoint.tensors["loop"]
        self.raw_model.load_state_dict(tensors["model"])
        optimizer_from_plain(self.optimizer, tensors["optimizer"], state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(tensors["ema"])
        if self.online is not None:
            self.online.load(tensors["rates"], rows.moved)
        self.step, self.epoch, self.epoch_start = state["step"], state["epoch"], state["epoch_start"]
        self.visits = rows.moved(loop["visits"], torch.zeros_like(self.visits))
        self.tally.start_with(loop["sums"], self.accelerator)
        self.counts = loop["counts"] if len(loop["counts"]) else None
        self._effective.load(state["effective"] if rows.same else None)
        if not rows.same and self.counts is not None:  # the epoch at hand was of other rows: a new one begins
            self.counts, self.epoch, self.epoch_start = None, state["epoch"] + 1, state["step"]
