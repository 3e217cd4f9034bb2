"""Threads follow what a process may use, and what the user has set stays."""

import os
import subprocess
import sys

from homing.threads import settle_threads, usable_cores


def test_cores_follow_the_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from homing.threads import usable_cores; print(usable_cores())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_what_the_user_has_set_stays():
    environment = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "TORCH_CPP_LOG_LEVEL": "INFO"}
    settle_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "TORCH_CPP_LOG_LEVEL": "INFO"}


def test_processes_of_one_launcher_share_the_cores():
    alone, shared, odd = {}, {"LOCAL_WORLD_SIZE": "1000"}, {"LOCAL_WORLD_SIZE": "many"}
    for environment in (alone, shared, odd):
        settle_threads(environment)
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(alone["OMP_NUM_THREADS"]) == int(odd["OMP_NUM_THREADS"]) == usable_cores()
    assert shared["OMP_NUM_THREADS"] == "1"


def test_the_program_sets_them_before_torch_is_loaded_and_the_library_does_not():
    code = "import os, homing, homing.rates; assert 'OMP_WAIT_POLICY' not in os.environ\n"
    code += "import sys; sys.argv = ['homing', 'recipes']\n"
    code += "from homing.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "print(os.environ['OMP_WAIT_POLICY'], file=sys.stderr)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "PASSIVE"
