"""`python -m studies.simulations`."""

from dynops.cli import command
from studies.simulations.study import main

if __name__ == "__main__":
    command(main, "Do intervals cover, and are verdicts wrong no more often than they say? Planted effects.")
