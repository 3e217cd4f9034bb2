"""The target's own images in a corpus: each with the rate that homing trains it with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homing.errors import DataError
from homing.outputs.corpus_forms import CorpusRow
from homing.outputs.ownership import marked
from homing.pools.pool import Pool
from homing.pools.reading import read_pool
from homing.pools.split_off import split_off
from homing.recipe.reading import recipe_of_run

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

PREFIX = "target-"
"""Before the name of a class of the target that is another than the source's of the same name."""


@dataclass(frozen=True)
class CorpusTarget:
    """The labelled target of a run.

    Attributes:
        run: Folder of the run.
        spec: Of its pool.
        weight: How often each of its images counts, beside source samples of mean rate 1.
        left_out: Ids of those that could not be read.
        taken: Classes of a source that shares no labels with it: those of the target are others, and called otherwise.
    """

    run: Path
    spec: PoolSpec
    weight: float
    left_out: frozenset[str]
    taken: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        run: Path,
        spec: PoolSpec | None,
        results: dict[str, Any],
        left_out: frozenset[str],
        share: float,
        taken: Iterable[str] = (),
    ) -> CorpusTarget:
        """The target of a run.

        Args:
            run: Its folder.
            spec: Of its pool.
            results: Of the run.
            left_out: Ids of those that could not be read.
            share: What a mean row of the source counts in the corpus, beside a mean row of the run.
            taken: Classes of the source, where they are others than the target's.

        Raises:
            DataError: It has no labels, or the run says no weight of it.
        """
        if spec is None or spec.labels == "none":
            raise DataError("--with-target: the target of this run has no labels to train with; leave it out")
        weight = target_weight_of(results)
        if weight is None:
            raise DataError("--with-target: results.json says no weight of the target; run the recipe again")
        return cls(run, spec, weight * share, left_out, frozenset(taken))

    @cached_property
    def _pool(self) -> Pool:
        pool = _as_trained(self.run, self.spec)
        noted = (marked(self.run).get("pools") or {}).get("target")
        if noted not in (None, pool.identity()):
            raise DataError(
                f"--with-target: {self.spec.path} changed since the run saw it (images came, went or got new labels);"
                " put it back as it was, or leave the target out"
            )
        return pool.select([row for row, name in enumerate(pool.ids) if name not in self.left_out])

    def __len__(self) -> int:
        return len(self._pool)

    def with_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Labels of the source's samples, and behind them those that only the target has."""
        return (*names, *sorted(set(self.called.values()) - set(names)))

    @cached_property
    def called(self) -> dict[str, str]:
        """Class → what it is called in a corpus: `target-` and its name where a class of the source has that name."""
        classes = set(self._pool.classes)
        called, names = {name: name for name in classes}, classes | self.taken
        for name in sorted(classes & self.taken):
            while called[name] in names:
                called[name] = f"{PREFIX}{called[name]}"
            names.add(called[name])
        return called

    def rows(self, columns: Sequence[str], scale: float | None) -> Iterator[CorpusRow]:
        """One for each image; of columns that are about the source alone nothing is known.

        Args:
            columns: Of the corpus.
            scale: What a rate is divided by to be a weight of a loss.
        """
        pool = self._pool
        known: dict[str, Any] = {"rate": self.weight, "visits": 0}
        if scale is not None:
            known["loss_weight"] = self.weight / scale
        for row, (sample_id, label) in enumerate(zip(pool.ids, pool.labels, strict=True)):
            own = {"sample_id": sample_id, "source": pool.sources[row], "label": self.called[label], **known}
            yield CorpusRow(row, 1, dict.fromkeys(columns) | own)


def _as_trained(run: Path, spec: PoolSpec) -> Pool:
    """The target without what was held out of it as a test."""
    if not (run / "recipe.yaml").exists():  # of `homing rate`
        return read_pool(spec)
    recipe = recipe_of_run(run)
    pool, held_out = read_pool(spec, sets=recipe.is_multi_label), recipe.data.test_split
    return pool if held_out is None else split_off(pool, held_out.stretch, recipe.data.max_pixels)[0]


def target_weight_of(results: dict[str, Any]) -> float | None:
    """How often each target image counts beside source samples, as a run found it."""
    weight = (results.get("rates") or {}).get("phi", {}).get("target_weight")
    return None if weight is None else float(weight)
