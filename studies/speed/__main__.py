"""`python -m studies.speed`."""

from dynops.cli import command
from studies.speed.study import main

if __name__ == "__main__":
    command(main, "How fast and how large local sums are on this machine, beside their peers.")
