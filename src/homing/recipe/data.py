"""Where the images of a run lie, and what they are for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from homing.recipe.conflicts import is_one_pool, is_split
from homing.recipe.section import Positive, Section, Text

Separator = Literal[",", ";", "tab", "|"]
ClassName = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class Place(Section):
    """Where images lie, and how they are read."""

    path: Text = Field(
        description="image folder, folder with metadata, table (parquet, csv, tsv, jsonl), saved dataset, tar shards,"
        " zip file, Lance table; s3://, gs://, hf:// of a table or an archive; or user/dataset of the Hugging Face hub"
    )
    name: str | None = Field(None, description="what to call this pool; default: the last part of its path")
    split: str | None = Field(
        None, description="split of a saved dataset or one of the hub, or sub-folder of an image folder"
    )
    image_column: str | None = Field(
        None, description="column with the images, or their paths; default: the one that looks like it"
    )
    root: Text | None = Field(
        None, description="folder, or its URL, where paths of images in a table begin; default: the table's own"
    )
    where: Text | None = Field(
        None, description="rows of a table to read: sender == 181 and split in [train, extra]; also !=, <, >=, not in"
    )
    separator: Separator | None = Field(
        None, description="what separates the cells of a csv or tsv file; default: found out"
    )
    config: Text | None = Field(None, description="configuration of a dataset of the Hugging Face hub")
    revision: Text | None = Field(
        None, description="branch, tag or commit of a dataset of the Hugging Face hub; default: its newest"
    )
    id_column: str | None = Field(None, description="column with a unique id for each sample")
    limit: Positive | None = Field(None, description="use only so many samples, drawn by their ids")


class PoolSpec(Place):
    """Where labelled images lie."""

    label_column: str | None = Field(None, description="column with the class; default: label, else the folder")
    label_columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None, description="multi_label: a column of 0 and 1 for each class, in place of label_column"
    )
    labels: Literal["shared", "other", "none"] = Field(
        "shared",
        description="of the target's classes; other: a source's own, with their own head; none: rates alone (source),"
        " not trained on (target)",
    )
    group_column: str | None = Field(None, description="column by which rates are also reported")
    rename: dict[ClassName, ClassName] = Field(
        {}, description="other names of classes, {old: new}; several may become one"
    )


class SplitOff(Section):
    """A part of the target's own images that is held out as the test, chosen by their ids, class by class."""

    split_off: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="share of the target's images")
    fold: Positive | None = Field(None, description="which of equal parts instead, from 1")
    folds: Annotated[int, Field(ge=2, le=100)] = Field(5, description="how many parts there are, with fold")

    @property
    def stretch(self) -> tuple[float, float]:
        """Beginning and end, 0..1, of the test among the images of a class in the order of their hashes."""
        if self.fold is None:
            assert self.split_off is not None
            return 0.0, self.split_off
        return (self.fold - 1) / self.folds, self.fold / self.folds


class UnlabelledSpec(Place):
    """Where unlabelled images lie: a folder of any depth, whose folders' names say nothing, or a table."""

    def as_pool(self) -> PoolSpec:
        """The same as a pool of which no label is asked for."""
        return PoolSpec(**self.model_dump(), labels="none")


class Truth(Section):
    """Columns of the source's metadata that hold the truth in a simulated study (1 or 0 in each row)."""

    matches_column: str = Field("matches", description="1 where the sample is of the target's domain")
    clean_column: str = Field("clean", description="1 where the label is right")


OneOrMorePools = Annotated[
    Annotated[PoolSpec, Tag("one pool")] | Annotated[tuple[PoolSpec, ...], Tag("list of pools")],
    Discriminator(lambda value: "list of pools" if isinstance(value, list | tuple) else "one pool"),
]


Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=80)]
OneOrNamedPools = Annotated[
    Annotated[PoolSpec, Tag("one pool")] | Annotated[dict[Name, PoolSpec], Tag("pools by name")],
    Discriminator(lambda value: "one pool" if is_one_pool(value) else "pools by name"),
]
OneTest = Annotated[
    Annotated[PoolSpec, Tag("one pool")] | Annotated[SplitOff, Tag("part of the target")],
    Discriminator(lambda value: "part of the target" if is_split(value) else "one pool"),
]
OneOrNamedTests = Annotated[
    Annotated[OneTest, Tag("one test")] | Annotated[dict[Name, OneTest], Tag("tests by name")],
    Discriminator(lambda value: "one test" if is_one_pool(value) else "tests by name"),
]

OneOrNamedUnlabelled = Annotated[
    Annotated[UnlabelledSpec, Tag("one pool")] | Annotated[dict[Name, UnlabelledSpec], Tag("pools by name")],
    Discriminator(lambda value: "one pool" if is_one_pool(value) else "pools by name"),
]


class Data(Section):
    """The roles of data."""

    source: OneOrMorePools = Field(description="the large pool, or a list of pools")
    target: OneOrNamedPools = Field(
        description="labelled images of the domain that the model is for; or several such pools by name: a run for each"
    )
    test: OneOrNamedTests | None = Field(
        None,
        description="held-out target images (by the targets' names), or a part of the target; without it:"
        " cross-validation",
    )
    unlabelled: OneOrNamedUnlabelled | None = Field(
        None,
        description="unlabelled images of that domain, trained on under guessed labels as far as these can be trusted;"
        " one pool for all targets, or pools by the targets' names",
    )
    on_bad_image: Literal["error", "drop"] = Field("error", description="stop, or leave out, count and list")
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = Field(  # beyond it Pillow itself refuses
        64_000_000, description="a larger picture counts as bad"
    )
    cache_gb: Annotated[float, Field(ge=0)] = Field(
        2.0,
        description="memory for decoded images, GB: target, test and unlabelled first, then as much of the source as"
        " fits",
    )
    cache: Literal["memory", "disk"] = Field(
        "memory", description="disk: decoded images are also kept beside the features, for every epoch and later runs"
    )
    truth: Truth | None = Field(None, description="known truth of a simulated source, for the oracle alone")

    @property
    def target_pool(self) -> PoolSpec:
        """The one target; recipes with several are split by `Recipe.by_target` first."""
        assert isinstance(self.target, PoolSpec)
        return self.target

    @property
    def test_pool(self) -> PoolSpec | None:
        """The one pool of the test, where there is any."""
        assert not isinstance(self.test, dict)
        return self.test if isinstance(self.test, PoolSpec) else None

    @property
    def test_split(self) -> SplitOff | None:
        """Which part of the target is the test, where it is one."""
        return self.test if isinstance(self.test, SplitOff) else None

    @property
    def unlabelled_pool(self) -> PoolSpec | None:
        """The one pool of unlabelled images, where there is any."""
        assert not isinstance(self.unlabelled, dict)
        return None if self.unlabelled is None else self.unlabelled.as_pool()

    @property
    def shares_labels(self) -> bool:
        """Whether source and target are labelled, with the same classes."""
        return all(spec.labels == "shared" for spec in (*self.sources, self.target_pool))

    @property
    def sources(self) -> tuple[PoolSpec, ...]:
        """The source pools as a tuple, also where the recipe names a single one."""
        return self.source if isinstance(self.source, tuple) else (self.source,)
