"""Take the README's pictures of a report in a real browser, and fail where the page writes to its console.

    python docs/report_pictures.py RUN docs/images
    python docs/report_pictures.py RUN FOLDER --size 500,9000 --print     (phone width, and report.pdf)

Needs Chromium or Chrome on the PATH (Debian: apt-get install chromium). Writes report-light.png and report-dark.png.
The page's own policy forbids every outside request, and the browser writes each attempt to the console.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SCHEMES = {"light": 1, "dark": 0}  # Blink's numbers for prefers-color-scheme
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def main() -> int:
    """Take both pictures; exit code 1 where the browser is missing or the page complained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with a report.html")
    parser.add_argument("output", type=Path, help="folder for the pictures")
    parser.add_argument("--size", default="1280,1500", help="window as WIDTH,HEIGHT (default %(default)s)")
    parser.add_argument("--print", action="store_true", help="also print it, to report.pdf")
    given = parser.parse_args()
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    page = given.run / "report.html"
    if browser is None or not page.is_file():
        print(f"needs one of {', '.join(_NAMES)} on the PATH, and {page}", file=sys.stderr)
        return 1
    given.output.mkdir(parents=True, exist_ok=True)
    complaints = [
        line
        for scheme in _SCHEMES
        for line in look(
            browser,
            page,
            f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}",
            f"--window-size={given.size}",
            f"--screenshot={(given.output / f'report-{scheme}.png').resolve()}",
        )
    ]
    if given.print:
        place = (given.output / "report.pdf").resolve()
        complaints += look(browser, page, "--no-pdf-header-footer", f"--print-to-pdf={place}")
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


def look(browser: str, page: Path, *wanted: str) -> list[str]:
    """Open the page with some options of the browser; return what it wrote to its console."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *_QUIET, f"--user-data-dir={profile}", *wanted, page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


if __name__ == "__main__":
    raise SystemExit(main())
