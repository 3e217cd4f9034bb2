"""A rate for every source row: read and updated by batch, at the same cost whatever the number of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from homing.errors import CheckpointError, DataError, DivergedError, HomingError
from homing.rates.table_file import check_folder, check_texts, digests, read_table, write_table, writing
from homing.rates.table_rows import checked_rows, merge_duplicates
from homing.rates.whole_numbers import whole

_STATE = {"rate": torch.float32, "velocity": torch.float32, "alignment": torch.float32, "visits": torch.int32}
"""16 bytes a row."""


class RateTable:
    """Rates rᵢ in [0, max_rate], learned from alignments (DESIGN's `instance` method).

    An update turns each alignment into aᵢ' = (aᵢ − centre) / scale, where scale is the running root mean square of the
    alignments (so that `learning_rate` has no unit) and centre their running mean, of the sample's class when labels
    are given (so that the rates do not drift as a whole: only being *better than the usual sample* raises a rate). Then

        velocity ← momentum · velocity + (1 − momentum) · a'
        rate     ← clip(rate + learning_rate · velocity − decay · (rate − 1), 0, max_rate)

    Args:
        num_rows: Source rows N, ≥ 1.
        learning_rate: Change of a rate per visit, for an alignment of one running scale; > 0.
        momentum: Of a row's velocity over its own visits, in [0, 1).
        decay: Pull of a visited rate towards 1, per visit, in [0, 1].
        max_rate: Upper bound, ≥ 1.
        num_classes: Classes that `labels` may name in updates, ≥ 1.
        memory: Share that the running scale and centre keep at each update, in [0, 1).
        device: Where the state lives; reads come back on the device of the rows that were asked for.

    Raises:
        HomingError: An argument is outside of its range.
    """

    def __init__(
        self,
        num_rows: int,
        learning_rate: float = 0.1,
        momentum: float = 0.5,
        decay: float = 0.01,
        max_rate: float = 3.0,
        num_classes: int = 1,
        memory: float = 0.98,
        device: torch.device | str = "cpu",
    ) -> None:
        num_rows, num_classes = whole("num_rows", num_rows, 1), whole("num_classes", num_classes, 1)
        _check_settings(learning_rate, momentum, decay, max_rate, memory)
        self.num_rows = num_rows
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.decay = decay
        self.max_rate = max_rate
        self.memory = memory
        self._state = {name: torch.zeros(num_rows, dtype=dtype, device=device) for name, dtype in _STATE.items()}
        self._state["rate"].fill_(1.0)
        # Running moments in fp64, one per class: weight of what was seen, its mean; and the same for the square.
        self._seen = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self._centre = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self._square = torch.zeros(2, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The rates of some rows, in their order.

        Args:
            rows: Integer row positions [batch], 0 to N − 1.

        Returns:
            fp32 [batch] in [0, max_rate], on the rows' device, without gradient.

        Raises:
            DataError: Rows are not integers, or outside of the table.
        """
        rows = checked_rows(rows, self.num_rows)
        rates = self._state["rate"]
        return rates[rows.to(rates.device)].to(rows.device)

    @property
    def rates(self) -> Tensor:
        """All rates, fp32 [N] (a copy)."""
        return self._state["rate"].clone()

    @property
    def alignments(self) -> Tensor:
        """Running mean of each row's centred, scaled alignments, fp32 [N]; 0 for rows never visited (a copy)."""
        return self._state["alignment"].clone()

    @property
    def visits(self) -> Tensor:
        """Number of updates of each row, int32 [N] (a copy)."""
        return self._state["visits"].clone()

    @property
    def nbytes(self) -> int:
        """Bytes that the per-row state takes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._state.values())

    @torch.no_grad()
    def update(self, rows: Tensor, alignments: Tensor, labels: Tensor | None = None) -> None:
        """Learn from one observed batch. A row that occurs several times counts once, with its mean alignment.

        Args:
            rows: Integer row positions [batch], 0 to N − 1.
            alignments: ⟨direction, ∇ℓᵢ⟩ of these samples [batch], any scale, finite.
            labels: Class of each sample [batch], 0 to num_classes − 1; alignments are then centred within the class.

        Raises:
            DataError: Rows or labels are out of range, or the lengths differ.
            DivergedError: An alignment is not finite; the table is left as it was.
        """
        rates = self._state["rate"]
        rows, values, classes = merge_duplicates(rows, alignments, labels, self.num_rows, len(self._seen))
        rows, values, classes = (tensor.to(rates.device) for tensor in (rows, values, classes))
        if not len(rows):
            return
        if not bool(values.isfinite().all()):
            first = int(rows[~values.isfinite()][0])
            raise DivergedError(f"the alignment of row {first} is not finite; nothing was updated")
        step = self._normalised(values, classes).float()
        velocity = self._state["velocity"]
        velocity[rows] = self.momentum * velocity[rows] + (1 - self.momentum) * step
        moved = rates[rows] + self.learning_rate * velocity[rows] - self.decay * (rates[rows] - 1)
        rates[rows] = moved.clamp(0.0, self.max_rate)
        visits = self._state["visits"]
        visits[rows] += 1
        running = self._state["alignment"]
        running[rows] += (step - running[rows]) / visits[rows]
        assert bool(rates[rows].isfinite().all())

    def _normalised(self, values: Tensor, classes: Tensor) -> Tensor:
        """Update the running moments with these alignments, then centre and scale them; fp64 [batch]."""
        counts = torch.bincount(classes, minlength=len(self._seen)).double()
        sums = torch.bincount(classes, values, minlength=len(self._seen))
        new = 1 - self.memory ** counts.clamp(max=1.0)  # classes that are absent keep what they have
        self._seen += new * (1 - self._seen)
        self._centre += new * (sums / counts.clamp(min=1.0) - self._centre)
        centres = self._centre / self._seen.clamp(min=1e-300)
        centred = values - centres[classes]
        now = torch.stack([torch.ones_like(centred[0]), centred.square().mean()])
        self._square += (1 - self.memory) * (now - self._square)
        # Alignments that agree to within rounding differ by noise, which must not be scaled up to rates.
        scale = (self._square[1] / self._square[0]).sqrt().clamp(min=1e-6 * float(centres.abs().max()))
        return torch.where(scale > 0, centred / scale, torch.zeros_like(centred))

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state as plain tensors, for a checkpoint."""
        moments = {"seen": self._seen, "centre": self._centre, "square": self._square}
        return {name: tensor.clone() for name, tensor in {**self._state, **moments}.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; all of it is checked before any of it is used.

        Raises:
            CheckpointError: Entries are missing or unknown, have other shapes, or values out of bounds.
        """
        mine = {**self._state, "seen": self._seen, "centre": self._centre, "square": self._square}
        if set(state) != set(mine):
            raise CheckpointError(f"rate table state has entries {sorted(state)}; expected {sorted(mine)}")
        for name, tensor in mine.items():
            if state[name].shape != tensor.shape:
                raise CheckpointError(
                    f"rate table state: {name} has shape {tuple(state[name].shape)}, this table {tuple(tensor.shape)}"
                )
        self._check_bounds(state)
        for name, tensor in mine.items():
            tensor.copy_(state[name])

    def _check_bounds(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in state.items():
            if not bool(tensor.isfinite().all()):
                raise CheckpointError(f"rate table state: {name} has values that are not finite")
        for name, most in {"rate": self.max_rate, "visits": math.inf, "seen": 1.0, "square": math.inf}.items():
            least, largest = float(state[name].min()), float(state[name].max())
            if least < 0 or largest > most:
                raise CheckpointError(
                    f"rate table state: {name} goes from {least:g} to {largest:g}; allowed: 0 to {most:g}"
                )

    def save(self, path: str | Path, ids: Sequence[str]) -> None:
        """Save the per-row state under the rows' ids (safetensors; written to a temporary file, then renamed).

        Args:
            path: File to write.
            ids: Sample id of every row, in row order, unique.

        Raises:
            DataError: Not one id per row, ids are no texts or occur twice, or the file cannot be written.
        """
        moments = {"seen": self._seen, "centre": self._centre, "square": self._square}
        write_table(Path(path), ids, self._state, moments)

    def save_rates(
        self,
        path: str | Path,
        ids: Sequence[str],
        labels: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
    ) -> None:
        """Write `rates.parquet`, which samplers and `homing corpus` read: rate, target alignment and visits by id.

        Args:
            path: File to write; it appears whole or not at all. Needs pyarrow.
            ids: Sample id of every row, in row order, unique.
            labels: Class name of every row; None leaves the column empty.
            sources: Name of every row's source; None leaves the column empty.

        Raises:
            DataError: Not one id, label or source per row, some are no texts, ids occur twice, or the file cannot be
                written.
        """
        from homing.outputs.artefact import open_whole
        from homing.rates.rates_writer import RatesWriter

        digests(ids, self.num_rows)
        texts = {"sample_id": ids, "label": labels, "source": sources}
        for name, values in texts.items():
            if values is not None and len(values) != self.num_rows:
                raise DataError(f"{len(values)} values of {name} for {self.num_rows} rows; give one per row")
            if values is not None and name != "sample_id":
                check_texts(values, f"values of {name}")
        numbers = {"rate": self.rates, "target_alignment": self.alignments, "visits": self.visits}
        check_folder(Path(path))
        whole = open_whole(Path(path))
        with writing(Path(path)), whole as file, closing(RatesWriter(file, has_suggested=False)) as writer:
            writer.add({**texts, **{name: values.cpu().numpy() for name, values in numbers.items()}})

    def load(self, path: str | Path, ids: Sequence[str]) -> int:
        """Take up what was saved, each row by its id: rows may be reordered, new or gone.

        A row whose id is not in the file starts as new (rate 1); what the file knows of other ids is left out.

        Args:
            path: File that `save` wrote.
            ids: Sample id of every row of *this* table, in row order, unique.

        Returns:
            Number of rows that were found in the file.

        Raises:
            CheckpointError: The file is damaged or of another kind.
            DataError: Not one id per row, or ids occur twice.
        """
        fresh = {name: torch.full((self.num_rows,), float(name == "rate")).to(dtype) for name, dtype in _STATE.items()}
        saved, moments, (mine, theirs) = read_table(Path(path), ids, _STATE, self.num_rows)
        for name, tensor in fresh.items():
            tensor[mine] = saved[name][theirs]
        fresh["rate"].clamp_(max=self.max_rate)
        self.load_state_dict({**fresh, **moments})
        return len(mine)


def _check_settings(
    learning_rate: float,
    momentum: float,
    decay: float,
    max_rate: float,
    memory: float,
) -> None:
    allowed = {
        f"learning_rate is {learning_rate}; allowed: above 0, finite": 0 < learning_rate < math.inf,
        f"momentum is {momentum}; allowed: 0 up to below 1": 0 <= momentum < 1,
        f"decay is {decay}; allowed: 0 to 1": 0 <= decay <= 1,
        f"max_rate is {max_rate}; allowed: 1 and more": max_rate >= 1,
        f"memory is {memory}; allowed: 0 up to below 1": 0 <= memory < 1,
    }
    for message, holds in allowed.items():
        if not holds:
            raise HomingError(message)
