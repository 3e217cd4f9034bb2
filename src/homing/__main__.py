"""`python -m homing` is the same program, for `torchrun -m homing`."""

from homing.cli import main

main()
