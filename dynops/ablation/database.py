"""A study in a PostgreSQL database, for workers that see no common folder: plan, records, leases and Optuna's trials.

The database holds what counts. Each machine has a folder with its own runs and a copy of the records, from which
reports are made. No two results of one point can be entered: an index of the database forbids it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import Select, make_url, select, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.exc import ArgumentError, DBAPIError

from dynops.ablation.plan import Plan
from dynops.ablation.shared import InFolder, Shared
from dynops.ablation.store import RECORDS, first_line, held, plan_line, read_plan, read_study
from dynops.ablation.tables import CONNECTION, DRIVER, LINES, OUTAGES, STUDIES, DatabaseLeases, cause, locked, reached
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord, append_lines, write_atomically

NOTE = "storage"
"""File of a folder that says from which database its records are copied, and the study's name there."""


def shared_at(folder: Path, storage: str | None = None) -> Shared:
    """Return the study of a folder, or of a database; the folder notes which, so that it need not be named again.

    Raises:
        SpecError: the storage is no PostgreSQL database, or has a password in its address.
        StudyError: the folder has a study of its own or a copy from another database, or the database does not answer.
    """
    note = folder / NOTE
    known, name = note.read_text().splitlines() if note.exists() else (None, None)
    if storage is None:
        return InFolder(folder) if known is None else InDatabase(folder, known, name)
    address = _checked(storage)
    if known is None and (folder / RECORDS).exists():
        raise StudyError(f"{folder} has a study of its own, storage has {address}: use another folder, or no storage.")
    if known not in (None, address):
        raise StudyError(f"{folder} has a copy from {known}, storage has {address}: use another folder, or that one.")
    return InDatabase(folder, address)


class InDatabase(Shared):
    """A study in a database, and what of it is on this machine."""

    leases: "DatabaseLeases"

    def __init__(self, folder: Path, address: str, name: str | None = None) -> None:
        """Reach for a database.

        Args:
            folder: of the study on this machine.
            address: of the database, as SQLAlchemy has it, without a password.
            name: of the study there; by default that of the folder.
        Raises:
            StudyError: it does not answer.
        """
        self._address, self._name = address, name or folder.resolve().name
        self._engine = reached(address)
        self._trials: RDBStorage | None = None
        self._storage: BaseStorage | None = None
        self._copied = (0, 0, 0)  # inode and size of the copy, and how many records it held
        super().__init__(folder, DatabaseLeases(self._engine, self._name))

    def part(self, name: str) -> "InDatabase":
        return InDatabase(self.folder / name, self._address, f"{self._name}/{name}")

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._engine.connect() as connection, locked(connection, self._name):
            yield

    def plan(self) -> Plan | None:
        self._fetch()
        return read_plan(self.folder, Plan, "study") if (self.folder / RECORDS).exists() else None

    def read(self) -> tuple[Plan, list[RunRecord]] | None:
        with self._engine.connect() as connection:
            plan = connection.scalar(select(STUDIES.c.plan).where(STUDIES.c.name == self._name))
            if plan is None:
                return None
            lines = connection.scalars(self._lines()).all()
        with held(self.folder, wait=True):
            self._copy([plan, *lines])
        return read_study(self.folder)

    def write(self, plan: Plan, records: Sequence[RunRecord]) -> None:
        row = {"name": self._name, "plan": plan_line(plan)}
        with self._engine.begin() as connection:
            connection.execute(
                insert(STUDIES).values(row).on_conflict_do_update(index_elements=["name"], set_={"plan": row["plan"]})
            )
            known = set(connection.scalars(self._of_study(select(LINES.c.point)).where(LINES.c.accepted)))
            for record in records:
                if record.accepted and record.point not in known:
                    connection.execute(self._line(record))
        self.read()

    def append(self, record: RunRecord) -> None:
        with self._engine.begin() as connection:
            connection.execute(self._line(record))

    def keep(self, record: RunRecord) -> bool:
        """Put a result on disk and into the database; return False, and leave all as it is, if another is there."""
        if not super().keep(record):
            return False
        self.append(record)
        found = self._of_study(select(LINES.c.line)).where(LINES.c.accepted, LINES.c.point == record.point)
        with self._engine.connect() as connection:
            return connection.scalar(found) == record.to_json()

    def remember(self, maker: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(STUDIES).where(STUDIES.c.name == self._name).values(maker=maker))

    def maker(self) -> str | None:
        with self._engine.connect() as connection:
            return connection.scalar(select(STUDIES.c.maker).where(STUDIES.c.name == self._name))

    def name(self, plan: Plan) -> str:
        return self._name

    def mend(self) -> None:
        """Do nothing: a database leaves nothing half written."""

    def look(self) -> None:
        try:
            self._fetch()
        except Exception as error:
            if self.outage(error) is None:
                raise

    def _fetch(self) -> None:
        """Add to the copy what is new."""
        with held(self.folder, wait=True):
            known = self._known()
            with self._engine.connect() as connection:
                plan = connection.scalar(select(STUDIES.c.plan).where(STUDIES.c.name == self._name))
                new = [] if plan is None else connection.scalars(self._lines().offset(known)).all()
            if plan is None:
                return
            file = self.folder / RECORDS
            if not file.exists() or first_line(file) != plan:
                before = file.read_text().splitlines()[1 : 1 + known] if file.exists() else []
                self._copy([plan, *before, *new])
            elif new:
                append_lines(file, new)
                self._note(known + len(new))

    def outage(self, error: BaseException) -> str | None:
        inner = error.__cause__ if isinstance(error, StorageInternalError) else error
        if isinstance(inner, OUTAGES) or (isinstance(inner, DBAPIError) and inner.connection_invalidated):
            return f"{self._address} does not answer ({cause(inner)})"
        return super().outage(error)

    def close(self) -> None:
        if self._trials is not None:
            self._trials.remove_session()
            self._trials.engine.dispose()
        self._trials = self._storage = None
        self._engine.dispose()

    @property
    def storage(self) -> BaseStorage:
        if self._storage is None:
            options = {"connect_args": CONNECTION, "pool_pre_ping": True}
            self._trials = RDBStorage(self._address, engine_kwargs=options)
            self._storage = get_storage(self._trials)  # with what does not change any more in memory
        return self._storage

    def _of_study(self, found: Select[Any]) -> Select[Any]:
        return found.where(LINES.c.study == self._name)

    def _lines(self) -> Select[Any]:
        return self._of_study(select(LINES.c.line)).order_by(LINES.c.id)

    def _line(self, record: RunRecord) -> Insert:
        values = {"study": self._name, "point": record.point, "accepted": record.accepted, "line": record.to_json()}
        return insert(LINES).values(values).on_conflict_do_nothing()

    def _known(self) -> int:
        """How many whole records the copy holds."""
        file = self.folder / RECORDS
        if not file.exists():
            return 0
        found = file.stat()
        if self._copied[:2] != (found.st_ino, found.st_size):
            self._note(file.read_bytes().count(b"\n") - 1)
        return self._copied[2]

    def _note(self, count: int) -> None:
        found = (self.folder / RECORDS).stat()
        self._copied = (found.st_ino, found.st_size, count)

    def _copy(self, lines: Sequence[str]) -> None:
        """Make the copy anew, if it differs, and note where it comes from."""
        file, whole = self.folder / RECORDS, "".join(f"{line}\n" for line in lines)
        if not (self.folder / NOTE).exists():
            write_atomically(self.folder / NOTE, f"{self._address}\n{self._name}\n")
        if not file.exists() or file.read_text() != whole:
            write_atomically(file, whole)
        self._note(len(lines) - 1)


def _checked(storage: str) -> str:
    """Return the address of a database as SQLAlchemy has it; its errors don't repeat a password."""
    way = "must be postgresql://user@host/database"
    try:
        url = make_url(storage)
    except ArgumentError:
        raise SpecError(f"storage has no address of a database: {way}.") from None
    if url.password is not None or "password" in url.query:
        raise SpecError(
            f"storage has a password in it: {way}, and the password comes from the environment (PGPASSWORD) or from a "
            "file (~/.pgpass, or what PGPASSFILE names)."
        )
    if url.drivername not in ("postgresql", DRIVER):
        raise SpecError(f"storage has a database of kind {url.drivername!r}: {way}.")
    return url.set(drivername=DRIVER).render_as_string()
