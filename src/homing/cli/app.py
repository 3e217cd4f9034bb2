"""The command line: parse, call, print. torch is imported only by commands that train or predict."""

from __future__ import annotations

import os
import sys

import typer

from homing.cli import corpora, models, runs, scanning
from homing.cli.options import is_main
from homing.errors import HomingError
from homing.threads import settle_threads

app = typer.Typer(
    name="homing",
    help="Fine-tune an image model for one domain, with a learned rate for every source sample.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verbs in (runs, scanning, models, corpora):
    verbs.register(app)


def main() -> None:
    """Entry point: errors become one message on stderr and the exit code of their kind."""
    settle_threads(os.environ)
    try:
        sys.exit(app(standalone_mode=False) or 0)  # what a typer.Exit asked for
    except HomingError as error:
        if is_main():
            print(f"homing: {error}", file=sys.stderr)
        elif not error.shared:  # nobody else will tell it
            print(f"homing: process {os.environ['RANK']}: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Exit as exit_request:
        sys.exit(exit_request.exit_code)
    except typer.Abort:
        sys.exit(130)
    except OSError as error:  # a full disk, a folder without permission
        print("\n".join([f"homing: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself was wrong (typer carries its own copy of click's classes)."""
    return hasattr(error, "show") and hasattr(error, "exit_code")


if __name__ == "__main__":
    main()
