"""`python -m studies.many_runs`."""

from dynops.cli import command
from studies.many_runs.study import main

if __name__ == "__main__":
    command(main, "What running a study takes: many runs, the runner beside a bare loop, several workers.")
