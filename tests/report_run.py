"""A run folder for the report, written by hand: hostile names, missing values, real pictures."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from drawn_pools import encoded
from homing.evaluation.metrics import wilson_interval

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = "\"'><img src=x onerror=alert(2)>{{7*7}}</style></script>"
CLASSES = ["cat", "dog", HOSTILE]


class Page(HTMLParser):
    """Tags, attributes and text of a page as a browser would see them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data):
        if not self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def drawn(sample_id: str, size: int = 120) -> bytes:
    """A real picture whose look depends on the id."""
    seed = sum(map(ord, sample_id))
    image = Image.new("RGB", (size, size - 20), (seed % 200, 80, 120))
    ImageDraw.Draw(image).ellipse((seed % 50, 10, 90, 80), fill=(250, seed % 250, 90))
    return encoded(image, "JPEG" if seed % 2 else "PNG")


def pictures(ids: list[str]) -> list[bytes | None]:
    return [None if sample_id.endswith("7.png") else drawn(sample_id) for sample_id in ids]


def score(accuracy: float, num_test: int = 1447) -> dict:
    low, high = wilson_interval(accuracy, num_test)
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.01,
        "nll": 0.3,
        "ece": 0.02,
        "num_test": num_test,
        "accuracy_interval": [low, high],
    }


def results() -> dict:
    return {
        "version": "0.1.0",
        "recipe_sha256": "ab" * 32,
        "method": "hierarchical",
        "seed": 0,
        "target": score(0.912),
        "rates": {"effective_sample_size": 70.0, "phi": {"share": 0.1, "lift": 10, "match_share": 0.07}},
        "cost": {"seconds": 187.4, "source_gradients": 8100, "peak_rss_mb": 1874, "method_seconds": {"pooled": 12.5}},
        "baselines": {"pooled_oversampled": score(0.88), "oracle": score(0.93), BREAKOUT: score(0.5)},
        "warnings": ["Only 5 target images a class.", f"Odd class {HOSTILE}"],
        "headline": "test",
        "data": {
            "source": {"num_samples": 120, "digest": "sha256:00"},
            "target": {"num_samples": 15},
            "test": {"num_samples": 1447},
            "classes": CLASSES,
        },
        "per_class": {name: {"accuracy": 0.9, "num_test": 482} for name in CLASSES},
        "confusion": [[450, 20, 12], [5, 470, 7], [0, 3, 480]],
        "rejection": {
            "aurc": 0.03,
            "points": [
                {
                    "coverage": at,
                    "num_images": int(1447 * at),
                    "accuracy": 1 - 0.088 * at,
                    "accuracy_interval": [0.8, 1.0],
                }
                for at in (1.0, 0.9, 0.8, 0.5)
            ],
            "curve": [[place / 20, 1 - 0.088 * place / 20] for place in range(1, 21)],
        },
        "calibration": {"temperature": None, "reason": f"data.test is given {HOSTILE}"},
        "judged": [
            {
                "share": share,
                "lift": 10,
                "nll": 0.4 + share,
                "standard_error": 0.02,
                "posterior": posterior,
                "chosen": share == 0.1,
            }
            for share, posterior in ((0.02, 0.04), (0.1, 0.95), (0.4, 0.01))
        ],
        "versions": {"torch": "2.9", "odd": BREAKOUT},
    }


def rates_table(rows: int = 120) -> pa.Table:
    rng = np.random.default_rng(3)
    labels = [CLASSES[row % 3] for row in range(rows)]
    return pa.table(
        {
            "sample_id": [f"pool/{row:04d}.png" for row in range(rows - 2)] + [HOSTILE, BREAKOUT],
            "source": pa.array([("shop", HOSTILE)[row % 2] for row in range(rows)]).dictionary_encode(),
            "label": pa.array(labels).dictionary_encode(),
            "rate": pa.array(rng.lognormal(0, 1.2, rows), pa.float32()),
            "target_likeness": pa.array(rng.normal(size=rows), pa.float32()),
            "label_consistency": pa.array(rng.normal(size=rows), pa.float32()),
            "target_alignment": pa.array(np.full(rows, np.nan), pa.float32()),
            "visits": pa.array(np.ones(rows, dtype=np.int32)),
            "suggested_label": [None if row % 4 else CLASSES[(row + 1) % 3] for row in range(rows)],
            "photographer": [("Ada", BREAKOUT, None)[row % 3] for row in range(rows)],
        }
    )


def map_table() -> pa.Table:
    rng = np.random.default_rng(4)
    ids = [f"pool/{row:04d}.png" for row in range(0, 110, 2)] + ["pool/gone.png", "mine/1.png", "mine/2.png"]
    places = {f"{kind}_{axis}": rng.normal(size=len(ids)) for kind in ("pca", "umap") for axis in "xy"}
    return pa.table({"sample_id": ids, "role": ["source"] * 56 + ["target"] * 2, **places})


def metrics_rows() -> list[dict]:
    return [
        {
            "kind": "train",
            "method": method,
            "step": step,
            "epoch": 0,
            "loss": 2.0 / (step + 1),
            "source_loss": 2.1 / (step + 1),
            "target_loss": None if step == 3 else 1.9 / (step + 1),
            "target_accuracy": step / 40,
            "effective_sample_size": 120 - step,
        }
        for method in ("hierarchical", "pooled_oversampled")
        for step in range(30)
    ]


def write_run(folder: Path, found: dict | None = None, table: pa.Table | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results() if found is None else found))
    pq.write_table(rates_table() if table is None else table, folder / "rates.parquet")
    pq.write_table(map_table(), folder / "map.parquet")
    lines = [json.dumps(row) for row in metrics_rows()]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "train", "st')  # cut off mid-line
    (folder / "recipe.yaml").write_text(f"name: digits\nmodel: {{backbone: resnet18}}\n# {HOSTILE}\n")
    return folder
