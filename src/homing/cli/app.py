"""The command line: parse, call, print. torch is imported only by commands that train or predict."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from homing.cli import corpora, models, rating, runs, scanning
from homing.cli.streams import settle_streams
from homing.errors import HomingError, RecipeError
from homing.launch import is_main, leave, settle_group
from homing.terminal import in_lines
from homing.threads import settle_threads

app = typer.Typer(
    name="homing",
    help="Fine-tune an image model for one domain, with a learned rate for every source sample.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verbs in (runs, scanning, rating, models, corpora):
    verbs.register(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"homing {version('homing')}")
        raise typer.Exit


@app.callback(help=app.info.help)
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="print the version and stop")
    ] = False,
) -> None: ...


def main() -> None:
    """Entry point: errors become one message on stderr and the exit code of their kind."""
    settle_streams()
    if warning := settle_group(os.environ):
        _complain(f"warning: {warning}")
    settle_threads(os.environ)
    leave(_run())


def _run() -> int:
    """Do what the command line asks for, and print all of it; the exit code."""
    code = _code_of(_command)
    return _code_of(sys.stdout.flush) or code  # after an error too: what was printed until then may be lost


def _command() -> int | None:
    _check_working_folder()
    code: int | None = app(standalone_mode=False)  # what a typer.Exit asked for
    return code


def _code_of(work: Callable[[], int | None]) -> int:
    """The exit code of some work; says what went wrong."""
    try:
        return work() or 0
    except HomingError as error:
        if is_main() and str(error):
            _complain(f"homing: {error}")
        elif not error.shared and not is_main():  # nobody else will tell it
            _complain(f"homing: process {os.environ['RANK']}: {str(error).splitlines()[0]}")
        return error.exit_code
    except typer.Exit as exit_request:
        return exit_request.exit_code
    except typer.Abort as abort:
        if isinstance(abort.__cause__, EOFError):  # typer takes a file that ends too early for the end of the input
            raise abort.__cause__ from None
        return 130
    except OSError as error:  # a full disk, a folder without permission
        _complain("\n".join([f"homing: {_described(error)}", *getattr(error, "__notes__", ())]))
        return 1
    except MemoryError as error:
        _complain(f"homing: {error or 'there is not enough memory'}")
        return 1
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        return 2


def _complain(text: str) -> None:
    print(in_lines(text), file=sys.stderr)


def _check_working_folder() -> None:
    """Torch ends the process where the working folder is gone.

    Raises:
        RecipeError: It is.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise RecipeError(f"the working folder cannot be found ({error.strerror}); change to one that exists") from None


def _described(error: OSError) -> str:
    """Where it happened, and what; the system's number says nothing to people."""
    said = error.strerror or ", ".join(map(str, error.args))  # of a library's own making: words alone
    return f"{error.filename}: {said}" if error.filename and said else str(error)


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself was wrong (typer carries its own copy of click's classes)."""
    return hasattr(error, "show") and hasattr(error, "exit_code")


if __name__ == "__main__":
    main()
