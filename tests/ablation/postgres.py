"""A PostgreSQL server of a test's own, started from what the system has installed, on loopback and with a password."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

PASSWORD = "not-in-any-record"


def programs() -> Path | None:
    """Return the folder of the server's programs, None where there is none; Debian does not put them on the path."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places else None


class Postgres:
    """A server with an empty database; it does not run as root, so root starts it as another user."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._databases = 0
        self._folder = Path(tempfile.mkdtemp(prefix="dynops-postgres-"))
        self._user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        word = self._folder / "password"
        word.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._folder, word):
                shutil.chown(path, self._user)
        data = ("-D", str(self._folder / "data"))
        self._run("initdb", *data, "-U", "dynops", "-A", "scram-sha-256", f"--pwfile={word}", "--no-sync")
        self.start()

    def database(self) -> str:
        """Make a database, and return its address."""
        self._databases += 1
        name = f"studies{self._databases}"
        place = f"host=127.0.0.1 port={self._port} user=dynops dbname=postgres"
        with psycopg.connect(place, password=PASSWORD, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return f"postgresql://dynops@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", str(self._folder / "data"), "-o", options, "-l", f"{self._folder}/log")

    def stop(self) -> None:
        """Stop it in the middle of whatever it does."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._folder / "data"))

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._programs / program), *arguments]
        with open(self._folder / "said", "a") as said:
            subprocess.run(command, user=self._user, cwd="/", check=True, stdout=said, stderr=said)
