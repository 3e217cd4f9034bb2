"""What a run is: frozen models of a recipe, checked before anything heavy is imported.

The same tree is the reference of every key: its description, its default and what is allowed.
`recipe_reader` turns YAML and overrides into a `Recipe`; nothing in a recipe is ever imported or executed.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import yaml
from pydantic import Discriminator, Field, Tag, model_validator

from homing.measures import MetricName
from homing.methods import METHODS, MethodName
from homing.recipe.conflicts import LENGTHS, Conflict, conflicts
from homing.recipe.data import Data, PoolSpec
from homing.recipe.section import Positive, Section, Share, Text

Descriptor = Literal["target_likeness", "label_consistency"]
Tracker = Literal["tensorboard", "wandb", "trackio"]
NUM_SEEDS = 2**31  # 0 is the first
AVERAGE_LAST = 0.7
"""Share of the last steps whose weights are averaged, where the recipe does not say (docs/decisions/training.md)."""


class Model(Section):
    """The backbone, and how much of it is trained."""

    backbone: Text = Field(
        "resnet18", description="any timm model name; hf-hub:USER/MODEL of the Hugging Face hub; local-dir:FOLDER"
    )
    weights: Text = Field(
        "pretrained",
        description="pretrained (hub), none, bundled (a pip package: tf_efficientnet_lite0), or a file or timm folder",
    )
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = Field(None, description="pixels; default: timm's")
    trainable: Literal["all", "last_stage", "head"] = Field("all", description="which parameters are trained")
    head_init: Literal["probe", "random"] = Field(
        "probe", description="start the head from the probe fitted on scanned features, or at random"
    )
    keep: Literal["own", "best"] = Field(
        "own",
        description="what model/ is: of rates.method, or of whichever method is best on held-out folds of the target;"
        " with data.test, best costs evaluation.folds more trainings a method",
    )


class Guide(Section):
    """How the target's gradient is taken, for methods that use alignments."""

    batch_size: Positive | None = Field(None, description="target images a gradient; default: batch_size / 4")
    refresh_every: Positive = Field(8, description="steps between two target gradients; l2rw, meta_weight_net: 1")
    window: Positive = Field(4, description="target gradients averaged (exponentially)")


class Rates(Section):
    """How the learning rate of each source sample comes about."""

    method: MethodName = Field("hierarchical", description="how rates come about; uniform learns none")
    descriptors: tuple[Descriptor, ...] = Field(
        ("target_likeness", "label_consistency"), description="what the hierarchical rates may depend on"
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(5, description="folds of the target that judge the rates")
    apply: Literal["sample", "weight"] = Field("sample", description="draw samples by rate, or weight their loss")
    residuals: bool = Field(
        False, description="hierarchical: let each sample's own rate go on moving by its alignments while training"
    )
    observe_every: Positive = Field(4, description="steps between two observations of alignments")
    scope: Literal["all", "last_stage", "head"] = Field("all", description="parameters whose gradients align")
    step_size: Annotated[float, Field(gt=0, le=10)] = Field(0.1, description="step of an instance's rate")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="momentum of an instance's rate")
    decay: Share = Field(0.01, description="pull of an instance's rate to 1 at each visit")
    max_rate: Annotated[float, Field(gt=1)] = Field(3.0, description="upper bound of an instance's rate")
    guide: Guide = Field(Guide(), description="how the target's gradient is taken")


class Augmentation(Section):
    """Random crops, flips and colour, the same for any number of workers and processes."""

    min_scale: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="smallest share of the area cropped")
    max_aspect: Annotated[float, Field(ge=1)] = Field(1.2, description="widest aspect ratio of a crop")
    horizontal_flip: Share = Field(0.5, description="probability; 0 where left and right differ")
    color_jitter: Share = Field(0.1, description="range of brightness and contrast factors around 1")


AugmentationOrNone = Annotated[
    Annotated[Augmentation, Tag("augmentation")] | Annotated[Literal["none"], Tag("none")],
    Discriminator(lambda value: "none" if isinstance(value, str) else "augmentation"),
]


class Training(Section):
    """One loop, the same for every method and baseline."""

    epochs: Annotated[float, Field(ge=0)] | None = Field(
        None, description="passes over source + weighted target; 0: stop after the rates, nothing is trained"
    )
    steps: Positive | None = Field(None, description="optimizer steps, instead of epochs")
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="instead of epochs or steps: what all trainings of the run may take together; the number of steps"
        " follows from the time of the first ones, and is the same for every method",
    )
    batch_size: Positive = Field(32, description="samples a step, over all processes")
    accumulate: Positive = Field(1, description="parts in which a step's batch goes through the model")
    optimizer: Text = Field("adamw", description="any timm optimizer name")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak; default 5e-4 (all), 1e-3 (last_stage), 3e-4 (head; 1e-2 where it starts at random)"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="decoupled where the optimizer can")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="rate factor a layer, from the top"
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(None, description="bound of the gradient's norm")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine",
        description="of the learning rate; cosine ends at 1 % of it, and at 30 % where the last weights are averaged",
    )
    warmup: Share = Field(0.1, description="share of the steps with a rising learning rate")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="autocast; rates stay in fp32")
    target_weight: Annotated[float, Field(ge=0)] | None = Field(
        None, description="how often an epoch takes each target image; default: judged on folds of the target"
    )
    batch_norm: Literal["frozen", "train", "adapt"] = Field(
        "frozen", description="statistics as loaded, of the batch, or re-estimated on the target"
    )
    mixup: Annotated[float, Field(ge=0)] = Field(0.0, description="alpha; only with rates.method: uniform")
    augmentation: AugmentationOrNone = Field(Augmentation(), description="or none")
    average_last: Share | None = Field(
        None,
        description="share of the steps, at the end, whose weights are averaged, which are then judged and saved;"
        " default: 0.7 where weights are given and more than the head is trained, without ema; else 0",
    )
    branches: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None,
        description="fine-tunings from one start, each in an order of its own, whose weights are averaged;"
        " default: 2 for a last_stage on kept activations whose weights are given, else 1",
    )
    views: Annotated[int, Field(ge=0, le=1000)] = Field(
        4,
        description="last_stage: augmented views of each image that go through the frozen layers"
        " once and are trained on in turn; 0: every visit is augmented anew and goes through all layers",
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of an exponential average of the weights, in place of average_last; default: none"
    )
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="threads that decode images; default: as many as the process has cores"
    )


class Evaluation(Section):
    """What the run is held against."""

    baselines: tuple[MethodName, ...] = Field(
        (), description="also trained, at the same number of steps; probe: at none"
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        5,
        description="folds of the target that give the headline where there is no data.test, and choose the model with"
        " model.keep: best",
    )
    metric: MetricName = Field(
        "accuracy",
        description="what methods are judged and listed by; auroc: of two classes; top5_accuracy: of more than 10;"
        " with multi_label always mean average precision",
    )


class Output(Section):
    """What is left on disk while and after the run."""

    checkpoint_every: Positive = Field(500, description="steps")
    keep: Annotated[int, Field(ge=1)] = Field(2, description="newest checkpoints kept")
    models_gb: Annotated[float, Field(ge=0)] = Field(
        4.0, description="what models/ may take, GB; the run's own model is kept in any case"
    )
    log_every: Positive = Field(10, description="steps between two rows of metrics.jsonl")
    trackers: tuple[Tracker, ...] = Field((), description="where else metrics go; each needs the extra of its name")
    report: bool = Field(
        True,
        description="write report.html when a run ends; false saves a second or so: `homing report` writes it later",
    )
    show_target: bool = Field(
        False, description="show the target's own images and the test's with the largest loss in the report"
    )
    license: Text | None = Field(None, description="licence named in the model card, by its name on the hub")
    cache: Text = Field(
        "user", description="where scanned features are kept for the next run: user (cache folder), none, or a folder"
    )
    features: Literal["float32", "float16"] = Field(
        "float32",
        description="how features, and activations that last_stage is trained on, are stored; float16: half as large,"
        " rounded to three digits",
    )
    cache_gb: Annotated[float, Field(ge=0)] = Field(
        4.0,
        description="size of that cache, GB; what was unused for longest goes first. Activations that last_stage is"
        " trained on may take as much again while the run lasts",
    )


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(min_length=1, max_length=100)] = Field("run", description="shown in the report")
    seed: Annotated[int, Field(ge=0, lt=NUM_SEEDS)] = Field(0, description="order, augmentation, folds, initial head")
    task: Literal["single_label", "multi_label"] = Field(
        "single_label", description="whether an image is of one class, or of any number of them"
    )
    data: Data
    model: Model = Field(Model())
    rates: Rates = Field(Rates())
    training: Training
    evaluation: Evaluation = Field(Evaluation())
    output: Output = Field(Output())

    @model_validator(mode="after")
    def _no_conflicts(self) -> Recipe:
        if found := list(conflicts(self.model_dump())):
            raise Conflict(found)
        return self

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may be of several classes, or of none."""
        return self.task == "multi_label"

    @property
    def trains(self) -> bool:
        """Whether anything is trained; with `training.epochs: 0` the run stops after the rates."""
        return self.training.epochs != 0

    @property
    def averaged_share(self) -> float:
        """Share of the last steps whose weights are averaged; by itself only where that was measured to be no loss."""
        training, model = self.training, self.model
        if training.average_last is not None:
            return training.average_last
        is_tuned = model.trainable != "head" and model.weights != "none"
        return AVERAGE_LAST if is_tuned and training.ema is None else 0.0

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """Names of the methods of a run, its own first; one that keeps the best never ships less than its start."""
        guard: tuple[MethodName, ...] = (
            ("probe",) if self.model.keep == "best" and self.model.head_init == "probe" else ()
        )
        return tuple(dict.fromkeys((self.rates.method, *self.evaluation.baselines, *guard)))

    @property
    def chooses(self) -> bool:
        """Whether folds of the target choose the model that is shipped."""
        is_labelled = not isinstance(self.data.target, PoolSpec) or self.data.target.labels != "none"
        return self.model.keep == "best" and is_labelled and len(self.methods) > 1

    @property
    def learns_from_unlabelled(self) -> bool:
        """Whether anything of the run makes use of unlabelled images, where there are any."""
        learned = any(METHODS[name].plans_by == "learned" for name in self.methods)
        return learned and self.training.target_weight != 0

    def by_target(self) -> dict[str, Recipe]:
        """A recipe of its own for each target by name; empty where the recipe has one target without a name."""
        if isinstance(self.data.target, PoolSpec):
            return {}
        tests = self.data.test if isinstance(self.data.test, dict) else dict.fromkeys(self.data.target, self.data.test)
        unlabelled = self.data.unlabelled
        recipes, training = {}, self.training
        if training.minutes is not None:
            training = training.model_copy(update={"minutes": training.minutes / len(self.data.target)})
        for name, pool in self.data.target.items():
            own = unlabelled.get(name) if isinstance(unlabelled, dict) else unlabelled
            data = self.data.model_copy(update={"target": pool, "test": tests.get(name), "unlabelled": own})
            update = {"name": f"{self.name[:60]} {name[:39]}", "data": data, "training": training}
            recipes[name] = self.model_copy(update=update)
        return recipes

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)

    def sha256(self) -> str:
        """Digest of the resolved recipe, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    def fit_sha256(self) -> str:
        """The same of what each training follows from: other methods and the length may change while a run goes on."""
        tree = self.model_dump(mode="json")
        del tree["evaluation"]["baselines"]
        for key in LENGTHS:
            del tree["training"][key]
        return hashlib.sha256(yaml.safe_dump(tree, allow_unicode=True).encode()).hexdigest()
