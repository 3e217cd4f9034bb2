"""`python -m homing` is the same program, for `torchrun -m homing`."""

from homing.cli.app import main

main()
