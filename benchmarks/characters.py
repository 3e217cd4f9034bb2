"""Characters as a collection of 200 classes: Latin, Greek and Cyrillic ones in 293 faces, upright and slanted.

Each is drawn once a face at 64 pixels, turned, shifted and coloured a little. Some look alike (A, Α, А), so that no
features can tell all classes apart, though every label is right. Faces come with the system: Debian's packages are
`PACKAGES`; a face that lacks a character is left out.

    apt-get install --no-install-recommends $(python benchmarks/characters.py --packages)
    python benchmarks/characters.py $HOMING_DATA      # writes characters/<domain>/<class>/<number>.png there
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

PACKAGES = (
    "fonts-anonymous-pro fonts-cantarell fonts-cmu fonts-comfortaa fonts-croscore fonts-crosextra-caladea"
    " fonts-crosextra-carlito fonts-dejavu fonts-ebgaramond fonts-firacode fonts-freefont-ttf fonts-gfs-artemisia"
    " fonts-gfs-didot fonts-gfs-neohellenic fonts-hack fonts-inter fonts-jetbrains-mono fonts-jura fonts-lato"
    " fonts-liberation2 fonts-linuxlibertine fonts-noto-core fonts-open-sans fonts-paratype fonts-play"
    " fonts-roboto-unhinted fonts-tuffy fonts-vollkorn"
)
FONTS = Path("/usr/share/fonts")
SLANTED = ("italic", "oblique", "slanted", "_ri", "_rzi", "cmuni", "cmunti", "cmunsl", "cmunbi", "cmunsi", "cmunui")
CHARACTERS = "".join(
    [
        *map(chr, range(0x21, 0x7B)),  # ! to z
        *(chr(code) for code in range(0x391, 0x3AA) if code != 0x3A2),  # Α to Ω
        *map(chr, range(0x3B1, 0x3CA)),  # α to ω
        *map(chr, range(0x410, 0x450)),  # А to я
    ]
)[:200]
SIDE, LARGE = 64, 128
LabelledImage = tuple[Image.Image, str, str]


def characters() -> Iterator[LabelledImage]:
    """Every picture with its class, `u` and the code point, and its domain."""
    for number, path in enumerate(faces()):
        domain = "slanted" if any(word in path.stem.lower() for word in SLANTED) else "upright"
        face = ImageFont.truetype(str(path), size=int(LARGE * 0.7))
        rng = np.random.default_rng([7, number])
        for character in CHARACTERS:
            yield _drawn(character, face, rng), f"u{ord(character):04x}", domain


def faces() -> list[Path]:
    """Files with all characters, none twice."""
    found: dict[str, Path] = {}
    for path in sorted([*FONTS.glob("**/*.ttf"), *FONTS.glob("**/*.otf")], key=lambda path: path.name):
        known = TTFont(path, lazy=True).getBestCmap() or {}
        if all(ord(character) in known for character in CHARACTERS):
            found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return list(found.values())


def _drawn(character: str, face: ImageFont.FreeTypeFont, rng: np.random.Generator) -> Image.Image:
    paper, ink = rng.integers(170, 256, 3), rng.integers(0, 110, 3)
    image = Image.new("RGB", (LARGE, LARGE), tuple(int(value) for value in paper))
    place = tuple(float(value) for value in LARGE / 2 + rng.uniform(-8, 8, 2))
    ImageDraw.Draw(image).text(place, character, font=face, anchor="mm", fill=tuple(int(value) for value in ink))
    turned = image.rotate(
        float(rng.uniform(-8, 8)), Image.Resampling.BICUBIC, fillcolor=tuple(int(value) for value in paper)
    )
    return turned.resize((SIDE, SIDE), Image.Resampling.BOX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="to write")
    parser.add_argument("--packages", action="store_true", help="print the names of Debian's packages")
    arguments = parser.parse_args()
    if arguments.packages or arguments.folder is None:
        print(PACKAGES)
        return
    for number, (image, label, domain) in enumerate(characters()):
        place = arguments.folder / "characters" / domain / label
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:06d}.png")


if __name__ == "__main__":
    main()
