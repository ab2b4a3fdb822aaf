"""`dynops worker FOLDER` as a program that tests start."""

from dynops.cli import command, worker_command

if __name__ == "__main__":
    command(worker_command, "A worker.")
