"""The quickstart's data: a corpus of printed digits, and a customer who writes by hand.

Printed digits are drawn from the fonts that matplotlib ships, at the resolution of scikit-learn's 1,797 scans of
handwritten ones (8 x 8, UCI). Some scans are hidden in the corpus, and part of the corpus has wrong labels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from homing.progress import Advance

NUM_PRINTED, NUM_HIDDEN, SHARE_WRONG, SHOTS = 2_400, 300, 0.4, 5
_SIDE, _SHOWN = 8, 64  # pixels of a scan, and of the picture it is stored as
_NO_DIGITS = ("LastResort", "cmex", "cmsy", "cmmi", "STIXSiz", "STIXNonUni", "DejaVuSansDisplay", "DejaVuSerifDisplay")
Scan = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Digit:
    """One picture of the corpus: ink 0 to 1 [8, 8], what it shows, what its label says, where it is from."""

    ink: Scan
    shows: int
    label: int
    origin: str


def draw_pools(folder: Path, seed: int, advance: Advance = lambda count: None) -> None:
    """Draw `source`, `target` and `test` into a folder: images in a sub-folder a label, and the truth in metadata.csv.

    What an earlier drawing left there is replaced; files of other names stay.

    Args:
        folder: Is made where it does not exist.
        seed: Of all that is random; the test's scans do not depend on anything else.
        advance: Called with the number of pictures written.
    """
    generator = np.random.default_rng(seed)
    scans, shown = handwritten()
    order = generator.permutation(len(scans))
    target = [row for digit in range(10) for row in order[shown[order] == digit][:SHOTS]]
    others = order[~np.isin(order, target)]
    hidden, test = others[:NUM_HIDDEN], others[NUM_HIDDEN:]
    corpus = [
        *(Digit(ink, digit, digit, "printed") for ink, digit in printed(NUM_PRINTED, generator)),
        *(Digit(scans[row], int(shown[row]), int(shown[row]), "handwritten") for row in hidden),
    ]
    wrong = generator.permutation(len(corpus))[: round(SHARE_WRONG * len(corpus))]
    for position in wrong:
        digit = corpus[position]
        other = (digit.shows + int(generator.integers(1, 10))) % 10
        corpus[position] = Digit(digit.ink, digit.shows, other, digit.origin)
    _write(folder / "source", [corpus[row] for row in generator.permutation(len(corpus))], advance, truth=True)
    for role, rows in (("target", target), ("test", test)):
        digits = [Digit(scans[row], int(shown[row]), int(shown[row]), "handwritten") for row in rows]
        _write(folder / role, digits, advance, truth=False)


def num_pictures() -> int:
    """Pictures that `draw_pools` writes."""
    return NUM_PRINTED + len(handwritten()[0])


def handwritten() -> tuple[Scan, npt.NDArray[np.int64]]:
    """scikit-learn's scans: ink 0 to 1 [1797, 8, 8], and the digit of each."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


def printed(count: int, generator: np.random.Generator) -> Iterator[tuple[Scan, int]]:
    """Printed digits in turn, each of a random font, turned, shifted and scaled a little."""
    fonts = digit_fonts()
    for number in range(count):
        font = ImageFont.truetype(fonts[int(generator.integers(len(fonts)))], int(generator.integers(44, 61)))
        picture = Image.new("L", (_SHOWN, _SHOWN))
        middle = (_SHOWN / 2 + generator.uniform(-5, 5), _SHOWN / 2 + generator.uniform(-5, 5))
        ImageDraw.Draw(picture).text(middle, str(number % 10), fill=255, font=font, anchor="mm")
        picture = picture.rotate(generator.uniform(-12, 12), Image.Resampling.BICUBIC)
        small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
        levels = np.round(np.asarray(small, np.float32) / 255 * 16 * generator.uniform(1.0, 1.3)) / 16
        yield np.clip(levels, 0, 1), number % 10


def digit_fonts() -> list[str]:
    """Font files that matplotlib ships and that have digits, sorted by name."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(path) for path in sorted(folder.glob("*.ttf")) if not path.name.startswith(_NO_DIGITS)]


def _write(folder: Path, digits: list[Digit], advance: Advance, *, truth: bool) -> None:
    for left in folder.glob("[0-9]/" + 5 * "[0-9]" + ".png"):
        left.unlink()
    rows = []
    for number, digit in enumerate(digits):
        name = f"{digit.label}/{number:05d}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.round(255 * (1 - digit.ink)).astype(np.uint8))
        picture.resize((_SHOWN, _SHOWN), Image.Resampling.BICUBIC).save(path)
        rows.append(
            [name, digit.label, digit.origin, int(digit.origin == "handwritten"), int(digit.label == digit.shows)]
        )
        advance(1)
    if truth:
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["file_name", "label", "origin", "matches", "clean"], *rows])
