"""What things are called on pages, cards and in terminals: the one table of titles beside that of the methods."""

from __future__ import annotations

from homing.methods import METHODS

DESCRIPTORS = {
    "target_likeness": "Target likeness",
    "label_consistency": "Label consistency",
    "target_alignment": "Target alignment",
}
PHI = {"let_go": "noise exponent", "match_lift": "lift of matching images", "target_weight": "weight of a target image"}
"""Numbers of the rate model whose name does not say what they are; keys as in `results.json`."""


def title_of(name: str) -> str:
    """What a method is called; of names that the table does not know, the words."""
    plain = name.replace("_", " ")
    known = METHODS.get(name.lower().replace(" ", "_"))
    return known.title if known is not None else plain[:1].upper() + plain[1:]


def phi_title(name: str) -> str:
    """What a number of the rate model is called."""
    return PHI.get(name, name.replace("_", " "))
