"""The names that `import homing` promises, whatever else was imported before."""

import subprocess
import sys


def test_every_public_name_is_there_and_is_no_module():
    import homing.flow

    for name in homing.__all__:
        assert callable(getattr(homing, name)), name
    assert homing.run.__module__ == "homing.flow"


def test_the_function_stays_the_function_after_its_first_use():
    code = "import homing; first = homing.run; from homing.flow import RunResult; assert homing.run is first"
    subprocess.run([sys.executable, "-c", code], check=True)
