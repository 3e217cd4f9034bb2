"""The dataset card of a corpus: what the rates mean, for which target, by which numbers, and how to train with them."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from homing.methods import METHODS, title_of
from homing.outputs.corpus_target import PREFIX, CorpusTarget
from homing.outputs.corpus_writing import Wanted
from homing.outputs.titles import phi_title

_OPEN = {
    "parquet": 'corpus = datasets.load_dataset("{place}", split="train")',
    "folder": 'corpus = datasets.load_dataset("imagefolder", data_dir="{where}", split="train")',
    "metadata": 'corpus = pandas.read_csv("{where}/metadata.csv")',
    "webdataset": 'corpus = datasets.load_dataset("{place}", split="train")  # or by webdataset.WebDataset',
    "lance": 'corpus = lance.dataset("{place}/train.lance").to_table(columns=["sample_id", "rate"])',
}
_MODULE = {"metadata": "pandas", "lance": "lance"}


def corpus_card(
    results: dict[str, Any],
    wanted: Wanted,
    counts: npt.NDArray[np.int32],
    target: CorpusTarget | None,
    weight: float | None,
    scale: float | None,
    features: dict[str, Any],
    *,
    has_labels: bool,
    place: str,
) -> str:
    """Text of a corpus's README.md, with the front matter that the Hugging Face hub reads.

    Args:
        results: The content of `results.json` of the run.
        wanted: What corpus it is.
        counts: How often each source sample is in it, int32 [N].
        target: Where its images are in it too.
        weight: How often each labelled image of the target counts beside it; None: there is none, or nobody knows.
        scale: Mean rate of all that is in it, where it has weights of losses.
        features: That `datasets` has to be told.
        has_labels: Whether the source's samples have labels.
        place: Name of its folder.
    """
    name = _plain(str(results.get("name", "corpus")))
    front = _front_matter(wanted.form, target, features, _digest(results, counts, scale))
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}: a source pool with rates\n\n{_what_it_is(results, counts, target)}",
        f"## What the rates mean\n\n{_meaning(results, has_labels)}",
        f"## Where they come from\n\n{_origin(results, has_labels)}",
        f"## How to train with them\n\n{_training(wanted, target, weight, scale, place)}",
        "## Licence\n\nThe images have licences of their own; look at them before you pass this corpus on.",
    ]
    return "\n\n".join(parts) + "\n"


_RATE = """`rate` says how much a sample counts in a training for the target below: 0 is left out, 1 counts as
much as the average sample of its class, 3 as much as three of them. Rates have the mean 1 within each class, over the
whole pool; where pool and target share classes, those that the target lacks may have less."""
_LIKENESS = """`target_likeness` is a log density ratio: above 0 the sample looks more like the target than like the
pool."""
_CONSISTENCY = """`label_consistency` is the log-probability of the sample's own label; where it is far below 0 the
label is probably wrong, and `suggested_label` is the class that fits better."""


def _is_learned(results: dict[str, Any]) -> bool:
    """Whether rates come from likeness and labels; all that `homing rate` makes do."""
    method = METHODS.get(str(results.get("method", "hierarchical")))
    return method is not None and method.plans_by == "learned"


def _meaning(results: dict[str, Any], has_labels: bool) -> str:
    known = [_LIKENESS, *([_CONSISTENCY] if has_labels else [])] if _is_learned(results) else []
    return "\n".join([_RATE, *known, "All of it holds for this target alone."])


def _digest(results: dict[str, Any], counts: npt.NDArray[np.int32], scale: float | None) -> str:
    words = json.dumps([results, scale], default=str).encode()
    return hashlib.sha256(words + counts.tobytes()).hexdigest()[:16]


def _front_matter(form: str, target: CorpusTarget | None, features: dict[str, Any], digest: str) -> dict[str, Any]:
    splits = ["train", *(["target"] if target is not None else [])]
    # Not of parquet, whose names say as much: `datasets` keeps old rows of a configuration with the same words and
    # path, so that what is told of shards needs words of its own.
    listed = [{"split": split, "path": f"{split}-*.tar"} for split in splits] if form == "webdataset" else []
    return {
        "license": "unknown",
        "task_categories": ["image-classification"],
        "tags": ["homing", "sample-weights"],
        **({"configs": [{"config_name": "default", "description": digest, "data_files": listed}]} if listed else {}),
        **(_told(features) if features else {}),
    }


def _told(features: dict[str, Any]) -> dict[str, Any]:
    from datasets import DatasetInfo, Features
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    card = DatasetCardData()
    DatasetInfosDict({"default": DatasetInfo(features=Features(features))}).to_dataset_card_data(card)
    return {"dataset_info": {"features": card["dataset_info"]["features"]}}


def _what_it_is(results: dict[str, Any], counts: npt.NDArray[np.int32], target: CorpusTarget | None) -> str:
    different, rows = int(np.count_nonzero(counts)), int(counts.sum())
    text = f"{different:,} of {len(counts):,} samples of the source pool"
    text += f", {rows:,} rows with copies, drawn by rate" if rows != different else ""
    if target is not None:
        text += f"; and {len(target):,} labelled images of the target"
    return f"{text}. Written by homing {results.get('version', '')}".rstrip() + "."


def _how(results: dict[str, Any], has_labels: bool) -> str:
    """What decided about the rates."""
    if not _is_learned(results):
        method = str(results["method"])
        return f"Given by the method `{_plain(method)}` ({_plain(title_of(method))})."
    by = "by its likeness and by the pool's labels" if has_labels else "by its likeness alone"
    if results.get("judged", True):
        return f"Learned from the target {by}, judged on held-out folds."
    return (
        f"Learned from the target {by}. Nothing was judged: no held-out image of the target could say whether these"
        " rates help."
    )


def _origin(results: dict[str, Any], has_labels: bool) -> str:
    data = results.get("data", {})
    lines = [
        f"- {role}: `{_plain(str(pool['name']))}`, {pool['num_samples']:,} samples, digest `{pool['digest']}`"
        for role in ("source", "target")
        if (pool := data.get(role))
    ]
    numbers = (results.get("rates") or {}).get("phi", {})
    lines += [f"- {phi_title(name)} (`{name}`): {value:.4g}" for name, value in numbers.items()]
    size = (results.get("rates") or {}).get("effective_sample_size")
    lines += [f"- effective sample size: {size:,.0f}"] if size is not None else []
    return f"{_how(results, has_labels)}\n\n" + "\n".join(lines)


def _training(
    wanted: Wanted, target: CorpusTarget | None, weight: float | None, scale: float | None, place: str
) -> str:
    form, drawn = wanted.form, wanted.draw is not None
    where = place if target is None else f"{place}/train"
    samples = not drawn and form not in ("webdataset", "lance")
    lines = [f"import {_MODULE.get(form, 'datasets')}", "", *(["from homing.rates import RateSampler", ""] * samples)]
    lines += [_OPEN[form].format(place=place, where=where)]
    if form == "parquet" and target is not None:
        lines += [f'target = datasets.load_dataset("{place}", split="target")']
        lines += ["corpus = datasets.concatenate_datasets([corpus, target])"]
    lines += ['sampler = RateSampler(corpus["rate"])  # of a torch.utils.data.DataLoader'] * samples
    does = "Rows were drawn by rate already; train on them all" if drawn else "Draw rows in proportion to `rate`"
    parts = [f"{does}:\n\n```python\n" + "\n".join(lines) + "\n```"]
    if weight:
        own = "add them with that weight" if target is None else "their `rate` says so, and they are in this corpus"
        parts.append(
            f"The rates are meant beside the target's own labelled images, each of which counts {weight:.3g} times"
            f" (`target_weight`): {own}."
        )
    if target is not None and target.taken.intersection(target.called):
        parts.append(
            "Source and target share no labels: where both have a class of one name, these are two classes, and the"
            f" target's is called `{PREFIX}` and its name here."
        )
    if scale is not None:
        parts.append(
            "Or weight losses instead, with every row once an epoch: multiply the loss of each row by `loss_weight`."
            " Its mean over all that is here is 1, so the learning rate stays what it was."
        )
    elif not drawn:
        parts.append("Or weight losses instead: multiply the loss of each row by its rate. Do one of both, never both.")
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """A name on one line, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"\s+", " ", re.sub(r"[`|<>\[\]\\]", " ", text)).strip()
