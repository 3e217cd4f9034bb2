"""Draw rows by their rates in anyone's loop: right under several processes, resumable, for any number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Sampler
from torch.utils.data.distributed import DistributedSampler

from homing.errors import CheckpointError, DataError, HomingError
from homing.rates.epoch_draw import EpochDraw, Rates, as_rates, draw_epoch
from homing.rates.order import share_of_rank
from homing.rates.rates_by_id import rates_by_id
from homing.rates.shares import place_of_process, refuse_second_share
from homing.rates.table import RateTable
from homing.rates.whole_numbers import MOST, whole

_STATE = ("seed", "epoch", "num_samples", "num_visited", "rates")
_AT_ONCE = 4_096  # rows that are looked up at a time

RatesLike = Tensor | Rates | Sequence[float] | RateTable


class RateSampler(DistributedSampler[int]):
    """Rows of an epoch, each as often as its rate says.

    An epoch takes row i `num_samples · rate_i / Σ rates` times, rounded up or down (systematic resampling, the very
    draws of this package's own training). It is a pure function of seed, epoch and rates. Process r of W takes visits
    r, r + W, … of it: together they make each visit once, and none is padded or dropped. Where W does not divide
    `num_samples`, some make one visit more than others; `RateBatchSampler` still gives all of them as many batches.

    Call `set_epoch` before each epoch, as with any distributed sampler; without it every epoch is the same.

    It is a `DistributedSampler` so that frameworks which replace other samplers by one of their own leave it alone.

    Args:
        rates: [N], finite and at least 0: a tensor, an array, numbers, or a `RateTable`, which is read anew at the
            beginning of each epoch. They are not copied, and have to be the same in every process.
        num_samples: Visits of an epoch over all processes, 1 or more; N where not given.
        seed: The same in every process.
        rank: Of this process; that of `torch.distributed` where not given.
        world_size: Processes that share an epoch; those of `torch.distributed` where not given. Give rank 0 of world
            size 1 where the framework shares batches out itself (accelerate's `prepare`, the Trainer of transformers).

    Raises:
        DataError: Rates are no numbers, or not of one dimension.
        HomingError: A number is out of its range.
    """

    def __init__(  # not that of DistributedSampler, which wants a data set and a group of processes
        self,
        rates: RatesLike,
        num_samples: int | None = None,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise HomingError(f"rank is {rank} and world_size is {world_size}; give both of them, or none")
        if world_size is not None:
            world_size = whole("world_size", world_size, 1)
            rank = whole(f"of {world_size} processes, rank", rank, 0, world_size - 1)
        self.seed, self.epoch = whole("seed", seed), 0
        self.shuffle, self.drop_last = True, False  # what DistributedSampler is asked for
        self._num_samples = None if num_samples is None else whole("num_samples", num_samples, 1)
        self._place = (rank, world_size)
        self._start = 0  # visits, over all processes, that a loaded state has behind it
        self._begun = 0  # the same, where the iteration that was begun last began
        self._visited = 0  # the same, where that iteration stands
        self._drawn: EpochDraw | None = None
        self._expected: int | None = None  # digest of the rates that a loaded state goes on with
        as_rates(rates)
        self._rates = rates

    @classmethod
    def from_parquet(
        cls, path: str | Path, ids: Sequence[str], num_samples: int | None = None, **settings: Any
    ) -> RateSampler:
        """A sampler over rows whose rates stand in a `rates.parquet` under their ids.

        Args:
            path: With the columns `sample_id` and `rate`; what it knows of other ids is left out.
            ids: Sample id of each row, unique.
            num_samples: As in `RateSampler`.
            settings: `seed`, `rank` and `world_size`, as in `RateSampler`.

        Raises:
            DataError: The file cannot be read, an id has no rate, or ids occur twice.
        """
        return cls(rates_by_id(Path(path), ids), num_samples, **settings)

    @property
    def rates(self) -> RatesLike:
        """What the next epoch is drawn by, [N]; set it between epochs, for the same number of rows."""
        return self._rates

    @rates.setter
    def rates(self, rates: RatesLike) -> None:
        found = len(as_rates(rates))
        if found != len(self._rates):
            raise DataError(f"{found:,} rates for a sampler of {len(self._rates):,} rows; give one for each row")
        self._rates = rates

    @property
    def drawn_rates(self) -> Rates | None:
        """What the epoch at hand was drawn by, float [N]; None before the first.

        Where rates change, save them beside `state_dict`, and set `rates` to them before the state is loaded. They are
        no copy: set `rates` anew, or give a `RateTable`, rather than write into an array in the middle of an epoch.
        """
        return None if self._drawn is None else self._drawn.rates

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Visits of an epoch, over all processes."""
        return len(self._rates) if self._num_samples is None else self._num_samples

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Of this process."""
        return place_of_process(*self._place)[0]

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Processes that share an epoch."""
        return place_of_process(*self._place)[1]

    def __len__(self) -> int:
        """Visits of this process in a whole epoch."""
        return len(range(self.rank, self.num_samples, self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        """The rows of this process; from where a loaded state stood, the first time."""
        drawn, start = self.begin()
        rank, world = self.rank, self.num_replicas
        return self._rows(drawn, range(start, self.num_samples, _AT_ONCE * world), rank, world)

    def _rows(self, drawn: EpochDraw, pieces: range, rank: int, world: int) -> Iterator[int]:
        for first in pieces:
            for row in rows_between(drawn, first, first + pieces.step, rank, world):
                self.note(drawn, self._visited + world)
                yield row

    def begin(self) -> tuple[EpochDraw, int]:
        """Draw the epoch; returns it and the visits, over all processes, that are made already.

        Raises:
            DataError: A rate is negative or not finite, or all are 0; or the reader shares the epoch out again.
            CheckpointError: A state was loaded that was saved under other rates.
        """
        refuse_second_share(self, self.num_replicas, self.num_samples)
        drawn = draw_epoch(as_rates(self._rates), self.num_samples, seed=self.seed, epoch=self.epoch)
        if self._expected not in (None, drawn.digest):
            raise CheckpointError(
                "the sampler's state was saved within an epoch that was drawn by other rates; set sampler.rates to"
                " those (drawn_rates at the time), or begin with the next epoch by set_epoch"
            )
        start, self._start, self._expected = self._start, 0, None
        self._drawn, self._begun, self._visited = drawn, start, start
        return drawn, start

    def note(self, drawn: EpochDraw, visited: int) -> None:
        """Note how many visits all processes have made of an epoch, if it is the one that was begun last."""
        if drawn is self._drawn:
            self._visited = min(visited, self.num_samples)

    def set_epoch(self, epoch: int) -> None:
        """Turn to an epoch, from 0; the one that a loaded state stands in goes on where it stood.

        Raises:
            HomingError: It is no whole number, or below 0.
        """
        epoch = whole("epoch", epoch)
        if epoch != self.epoch:
            self.epoch, self._expected = epoch, None
            self._start = self._begun = self._visited = 0

    def state_dict(self, num_taken: int | None = None) -> dict[str, int]:
        """Where the epoch stands, in a few whole numbers; the same in every process.

        Args:
            num_taken: Visits of this process that were trained on since the iteration at hand was begun, where a loader
                reads ahead; all that were read where not given.

        Raises:
            HomingError: `num_taken` is no whole number, or below 0.
        """
        visited = self._visited
        if num_taken is not None:
            visited = min(self._begun + whole("num_taken", num_taken) * self.num_replicas, self.num_samples)
        digest = 0 if self._drawn is None or not visited else self._drawn.digest
        if visited and self._expected is not None:  # a state that was loaded and not gone on with yet
            digest = self._expected
        values = (self.seed, self.epoch, self.num_samples, visited, digest)
        return dict(zip(_STATE, values, strict=True))

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where a state was saved, in as many processes as there are now.

        Raises:
            CheckpointError: It is of another sampler, or damaged.
        """
        state = _checked(state)
        if state["num_samples"] != self.num_samples:
            raise CheckpointError(
                f"sampler state is of epochs of {state['num_samples']:,} samples, this sampler's have"
                f" {self.num_samples:,}; give num_samples={state['num_samples']}"
            )
        self.seed, self.epoch = state["seed"], state["epoch"]
        self._start = self._begun = self._visited = state["num_visited"]
        self._expected = state["rates"] if self._start else None


class RateBatchSampler(Sampler[list[int]]):
    """Batches of a `RateSampler`, as many in every process, so that none waits for another at the end of an epoch.

    A step takes `batch_size` visits in each process. The last one takes what is left: fewer, or one more where less
    than one for each process would be left for a step of its own.

    Args:
        sampler: Whose rows they are; `set_epoch`, `rates` and state are its own.
        batch_size: Rows of a batch in one process, 1 or more.

    Raises:
        HomingError: The batch size is below 1, or it is another sampler.
    """

    def __init__(self, sampler: RateSampler, batch_size: int) -> None:
        if not isinstance(sampler, RateSampler):
            raise HomingError(
                f"RateBatchSampler over {type(sampler).__name__}; it takes a RateSampler: a framework that puts its own"
                " there has to be told not to (Lightning: use_distributed_sampler=False)"
            )
        self.sampler, self.batch_size = sampler, whole("batch_size", batch_size, 1)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same in every process."""
        return self._num_batches(self.sampler.num_samples, self.sampler.num_replicas)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this process; from where a loaded state stood, the first time."""
        drawn, start = self.sampler.begin()
        return self._batches(drawn, start, self.sampler.rank, self.sampler.num_replicas)

    def _batches(self, drawn: EpochDraw, start: int, rank: int, world: int) -> Iterator[list[int]]:
        end, step = self.sampler.num_samples, self.batch_size * world
        for left in range(self._num_batches(end - start, world), 0, -1):
            stop = start + step if left > 1 else end
            self.sampler.note(drawn, stop)
            yield rows_between(drawn, start, stop, rank, world)
            start = stop

    def _num_batches(self, visits: int, world: int) -> int:
        if 0 < visits < world:
            raise DataError(
                f"{visits} of {self.sampler.num_samples:,} rows are left for {world} processes, and one would have"
                " none; give a larger num_samples, or go on with the next epoch by set_epoch"
            )
        return -(-max(0, visits - world + 1) // (self.batch_size * world))

    def set_epoch(self, epoch: int) -> None:
        """The sampler's."""
        self.sampler.set_epoch(epoch)

    def state_dict(self, num_taken: int | None = None) -> dict[str, int]:
        """The sampler's."""
        return self.sampler.state_dict(num_taken)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The sampler's."""
        self.sampler.load_state_dict(state)


def rows_between(drawn: EpochDraw, start: int, stop: int, rank: int, world: int) -> list[int]:
    """Rows that a process takes of a stretch of visits."""
    rows, _ = drawn.order[start:stop]
    found: list[int] = share_of_rank(rows, rank, world).tolist()
    return found


def _checked(state: Mapping[str, int]) -> dict[str, int]:
    found = sorted(state) if isinstance(state, Mapping) else [type(state).__name__]
    if found != sorted(_STATE):
        raise CheckpointError(f"sampler state has entries {found}; expected {sorted(_STATE)}")
    try:
        most = {"num_visited": whole("num_samples", state["num_samples"])}
        return {name: whole(name, state[name], 0, most.get(name, MOST)) for name in _STATE}
    except HomingError as error:
        raise CheckpointError(f"sampler state: {error}") from error
