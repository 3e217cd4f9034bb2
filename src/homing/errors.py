"""Errors for the person who reads them: what was found, where, what is allowed, what to do next.

Each class carries the exit code of the command line; docs/faq.md lists all of them.
"""

from __future__ import annotations


class HomingError(ValueError):
    """Base of every error that the person at the keyboard can mend."""

    exit_code = 1
    shared = False  # whether all processes of a run raise it together, so that the first one alone need tell it


class RecipeError(HomingError):
    """A recipe, an override or the command's own usage is wrong."""

    exit_code = 2
    shared = True


class DataError(HomingError):
    """A pool cannot be used as it lies on disk."""

    exit_code = 3


class DivergedError(HomingError):
    """Training met a value that is not finite and stopped before the update."""

    exit_code = 4
    details: dict[str, object] | None = None  # step, samples, losses: for divergence.json; None: the message alone


class CheckpointError(HomingError):
    """A checkpoint is damaged, incomplete or belongs to another run."""

    exit_code = 5


class Interrupted(HomingError):
    """The run was asked to stop and left a checkpoint behind."""

    exit_code = 130
    shared = True


class LostProcess(HomingError):
    """Another process of the group is gone."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: trying again may well succeed
