"""Do `homing predict`, plain timm and ONNX say the same of JPEGs of every size?

A small run is trained on drawn pictures (timm's test_resnet from random weights, 96 pixels), exported both ways, and
asked about 512 JPEGs of 12 sizes from 160 x 120 to 4032 x 3024 pixels that it has not seen. Three answers to each:

* homing: `homing predict`, large JPEGs halved while they are decoded;
* export: the ONNX and the timm export on pictures prepared by the `preprocess.py` that they carry;
* timm: the timm export on `timm.data.create_transform` of a full decode.

    python benchmarks/agreement.py             # writes benchmarks/results/agreement.json; some 3 minutes of one core
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from PIL import Image, ImageDraw
from timm.data import create_transform, resolve_model_data_config

from homing.flow import run
from homing.outputs.export import export_model
from homing.pools.decoding import ALLOWED_FORMATS
from homing.predict import predict
from homing.progress import Progress
from homing.recipe.reading import parse_recipe

CLASSES = ("square", "disk", "triangle", "ring")
SIZES = [(160, 120), (224, 224), (320, 240), (500, 375), (375, 500), (667, 500), (1006, 755), (1000, 750), (1024, 768)]
SIZES += [(1632, 1224), (2049, 1365), (4032, 3024)]
RESULT = Path(__file__).parent / "results" / "agreement.json"
_TEXTURE = np.random.default_rng(0).normal(0, 14, (1024, 1024, 3)).astype(np.float32)


def picture(generator: np.random.Generator, shape: str, size: tuple[int, int]) -> Image.Image:
    """A shape in one colour on a ground that shades, under the noise of a sensor."""
    width, height = size
    low = generator.integers(40, 215, (3, 4, 3)).astype(np.uint8)
    image = Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)
    draw, side = ImageDraw.Draw(image), min(size) * generator.uniform(0.15, 0.33)
    x, y = width / 2 + generator.uniform(-0.3, 0.3) * side, height / 2 + generator.uniform(-0.3, 0.3) * side
    ink = tuple(int(value) for value in generator.integers(0, 255, 3))
    box = (x - side, y - side, x + side, y + side)
    if shape == "square":
        draw.rectangle(box, fill=ink)
    elif shape == "disk":
        draw.ellipse(box, fill=ink)
    elif shape == "triangle":
        draw.polygon([(x, y - side), (x - side, y + side), (x + side, y + side)], fill=ink)
    else:
        draw.ellipse(box, outline=ink, width=max(2, int(side / 3)))
    left, top = (int(value) for value in generator.integers(0, 64, 2))
    noise = np.tile(_TEXTURE, (height // 1024 + 2, width // 1024 + 2, 1))[top : top + height, left : left + width]
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def draw_pool(root: Path, per_class: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for shape in CLASSES:
        (root / shape).mkdir(parents=True)
        for number in range(per_class):
            picture(generator, shape, (320, 240)).save(root / shape / f"{number}.jpg", quality=90)


def trained(folder: Path) -> Path:
    for seed, (role, per_class) in enumerate({"source": 60, "target": 8, "test": 8}.items()):
        draw_pool(folder / role, per_class, seed)
    tree = {
        "name": "agreement",
        "data": {role: {"path": str(folder / role)} for role in ("source", "target", "test")},
        "model": {"backbone": "test_resnet", "weights": "none", "image_size": 96},
        "rates": {"method": "uniform"},
        "training": {"steps": 150, "batch_size": 32, "workers": 0, "learning_rate": 3.0e-3},
        "evaluation": {"baselines": []},
    }
    return run(parse_recipe(json.dumps(tree), []), folder / "run", quiet=True).folder


def answers(folder: Path, files: list[Path]) -> dict[str, np.ndarray]:
    """Probabilities by way, float64 [N, C]."""
    for form in ("timm", "onnx"):
        export_model(folder / "run", form, folder / form)
    rows = io.StringIO()
    predict(folder / "run", files, rows, "jsonl", Progress(quiet=True))
    ours = [list(json.loads(line)["probabilities"].values()) for line in rows.getvalue().splitlines()]
    spec = importlib.util.spec_from_file_location("preprocess", folder / "onnx" / "preprocess.py")
    assert spec is not None
    assert spec.loader is not None
    script = sys.modules["preprocess"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    described = script.read_description(folder / "onnx")
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    model = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    found: dict[str, list[torch.Tensor]] = {"onnx": [], "timm export": [], "timm": []}
    with torch.inference_mode():
        for file in files:
            images = script.prepare([file], described)
            found["onnx"].append(torch.from_numpy(session.run(["logits"], {"images": images})[0]))
            found["timm export"].append(model(torch.from_numpy(images)))
            with Image.open(file, formats=ALLOWED_FORMATS) as image:
                found["timm"].append(model(transform(image.convert("RGB"))[None]))
    shares = {way: torch.cat(logits).double().softmax(1).numpy() for way, logits in found.items()}
    return {"homing": np.array(ours), **shares}


def main() -> None:
    torch.set_num_threads(1)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained(folder)
        generator = np.random.default_rng(7)
        files, sizes = [], []
        (folder / "asked").mkdir()
        for number in range(512):
            size = SIZES[number % len(SIZES)] if number % 48 == 11 or number % 12 != 11 else SIZES[5]
            path = folder / "asked" / f"{number:04d}.jpg"
            made = picture(generator, CLASSES[number % 4], size)
            made.save(path, quality=int(generator.choice([75, 90, 95])), progressive=bool(number % 5 == 0))
            files.append(path)
            sizes.append(size)
        shares = answers(folder, files)
    ours = shares["homing"]
    compared = {}
    for way, theirs in shares.items():
        if way == "homing":
            continue
        off = np.abs(theirs - ours)
        compared[way] = {
            "same_class": float((theirs.argmax(1) == ours.argmax(1)).mean()),
            "mean_off": float(off.mean()),
            "largest_off": float(off.max()),
            "mean_off_by_size": {f"{w} x {h}": float(off[[size == (w, h) for size in sizes]].mean()) for w, h in SIZES},
        }
    sure = np.sort(ours, 1)[:, -1]
    told = {
        "pictures": len(files),
        "classes": len(CLASSES),
        "probability_of_the_best": {"mean": float(sure.mean()), "below_0.6": int((sure < 0.6).sum())},
        "homing_against": compared,
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "pillow": Image.__version__},
        "cpu_seconds": round(time.process_time() - started),
    }
    RESULT.write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
