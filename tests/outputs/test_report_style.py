"""The report's colours: every text stands out from what it lies on, in both themes, by WCAG's contrast of 4.5."""

import re
from pathlib import Path

import pytest

import homing.outputs

CSS = (Path(homing.outputs.__file__).parent / "report" / "templates" / "report.css").read_text(encoding="utf-8")
THEMES = [
    dict(re.findall(r"--([\w-]+): ([^;]+);", block)) for block in re.findall(r":root[^{]*\{([^}]*--page[^}]*)\}", CSS)
]
GROUNDS = ("page", "card", "raised")
TEXT_ON = {
    "ink": (*GROUNDS, "accent-soft", "good-soft", "open-soft", "bad-soft"),
    "muted": GROUNDS,
    "accent": GROUNDS,
    "warm": ("card",),
    "good": ("good-soft",),
    "open": ("open-soft", "card"),
    "bad": ("bad-soft",),
}
MARKS = ("strong-line", *(f"series-{number}" for number in range(1, 7)))  # lines, dots, arrows, frames: 3 is asked


def rgb(text: str) -> tuple[float, ...]:
    if text.startswith("#"):
        return tuple(int(text[start : start + 2], 16) for start in (1, 3, 5))
    return tuple(float(part) for part in text.split(","))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def luminance(color):
        shares = [part / 255 for part in color]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_the_standard_does():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.01)  # the greyest grey that passes


def test_there_is_a_light_theme_and_one_dark_theme_written_twice():
    light, by_system, by_choice = THEMES
    assert by_system == by_choice != light
    assert by_system.keys() <= light.keys()


@pytest.mark.parametrize("theme", THEMES[:2], ids=["light", "dark"])
def test_every_text_has_a_contrast_of_4_5_and_every_mark_of_3(theme):
    low = {
        f"{text} on {ground}": contrast(rgb(theme[text]), rgb(theme[ground]))
        for text, grounds in TEXT_ON.items()
        for ground in grounds
        if contrast(rgb(theme[text]), rgb(theme[ground])) < 4.5
    }
    low |= {
        mark: contrast(rgb(theme[mark]), rgb(theme["card"]))
        for mark in MARKS
        if contrast(rgb(theme[mark]), rgb(theme["card"])) < 3
    }
    assert low == {}


@pytest.mark.parametrize("theme", THEMES[:2], ids=["light", "dark"])
@pytest.mark.parametrize("heat", ["heat", "heat-bad"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_counts_stay_readable_on_every_shade_of_the_confusion(theme, heat, share):
    alpha = share * float(theme["heat-top"])
    shade = tuple(
        alpha * front + (1 - alpha) * back for front, back in zip(rgb(theme[heat]), rgb(theme["card"]), strict=True)
    )
    assert contrast(rgb(theme["ink"]), shade) >= 4.5


def test_no_text_or_ground_is_left_out_here():
    texts = set(re.findall(r"(?<![-\w])color: var\(--([\w-]+)\)", CSS))
    assert texts - set(TEXT_ON) <= {"strong-line"}  # the arrows of columns that are not sorted: a mark
    grounds = set(re.findall(r"background: var\(--([\w-]+)\)", CSS))
    assert grounds - set(MARKS) - {"ink"} == {ground for grounds in TEXT_ON.values() for ground in grounds}
    assert not re.findall(r"(?<![-\w])color: (?!var|inherit)(?!scheme)[^;]+;", CSS.replace("color-scheme", ""))
