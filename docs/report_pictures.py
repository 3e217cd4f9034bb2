"""Take the README's pictures of a report in a real browser, and fail where the page writes to its console.

    python docs/report_pictures.py RUN docs/images

Needs Chromium or Chrome on the PATH (Debian: apt-get install chromium). Writes report-light.png and report-dark.png.
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
        for line in take(browser, page, given.output / f"report-{scheme}.png", scheme, given.size)
    ]
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


def take(browser: str, page: Path, picture: Path, scheme: str, size: str) -> list[str]:
    """Take one picture; return what the page wrote to its console."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            browser,
            *_QUIET,
            f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}",
            f"--window-size={size}",
            f"--screenshot={picture.resolve()}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


if __name__ == "__main__":
    raise SystemExit(main())
