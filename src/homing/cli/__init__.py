"""The command line: one file a group of verbs, each parses, calls and prints."""

from homing.cli.app import main

__all__ = ["main"]
