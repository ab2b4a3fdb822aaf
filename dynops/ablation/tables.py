"""The tables of a database in which studies meet, the way there, and leases as rows.

SQLAlchemy comes with Optuna, whose trials lie in tables of its own beside these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from dynops.ablation import leases
from dynops.ablation.leases import Leases, Tenure, holder
from dynops.errors import SpecError, StudyError

DRIVER = "postgresql+psycopg"
CONNECTION = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "tcp_user_timeout": 60_000}
OUTAGES = (OperationalError, InterfaceError, NoConnectionError)
TABLES = MetaData()
STUDIES = Table(
    "dynops_study",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("maker", Text),
)
LINES = Table(
    "dynops_record",
    TABLES,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("study", Text, nullable=False),
    Column("point", String(12), nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("line", Text, nullable=False),
)
Index("dynops_record_of_study", LINES.c.study, LINES.c.id)
Index("dynops_one_result", LINES.c.study, LINES.c.point, unique=True, postgresql_where=LINES.c.accepted)
LEASES = Table(
    "dynops_lease",
    TABLES,
    Column("study", Text, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("touched", DateTime(timezone=True), nullable=False),
    Column("tenure", String(10), nullable=False),
)


@cache
def reached(address: str) -> Engine:
    """Return a way to a database that answers, with our tables in it."""
    try:
        engine = create_engine(address, connect_args=CONNECTION, pool_pre_ping=True)
    except ModuleNotFoundError:
        raise SpecError("storage has a database, psycopg is missing: pip install 'dynops[postgres]'.") from None
    try:
        with engine.connect() as connection, locked(connection, "tables"):
            TABLES.create_all(connection)
            connection.commit()
    except OUTAGES as error:
        raise StudyError(f"{address} does not answer ({cause(error)}): it must run and let this user in.") from None
    return engine


@contextmanager
def locked(connection: Connection, name: str) -> Iterator[None]:
    """Hold a name in the database for this connection alone; should that die, so does the lock."""
    key = func.hashtextextended(f"dynops {name}", 0)
    connection.execute(select(func.pg_advisory_lock(key)))
    try:
        yield
    finally:
        with suppress(DBAPIError):
            connection.execute(select(func.pg_advisory_unlock(key)))


def cause(error: BaseException) -> str:
    """What a database's driver says, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


class DatabaseLeases(Leases):
    """A row for each lease."""

    def __init__(self, engine: Engine, study: str) -> None:
        """Look at the leases of a study."""
        self._engine, self._study = engine, study

    def write(self, trial: int) -> None:
        row = {"holder": holder(), "touched": func.now(), "tenure": Tenure.HELD.value}
        values = insert(LEASES).values(study=self._study, trial=trial, **row)
        with self._engine.begin() as connection:
            connection.execute(values.on_conflict_do_update(index_elements=["study", "trial"], set_=row))

    def drop(self, trial: int) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(LEASES).where(*self._are([trial])))

    def touch(self, trials: Sequence[int]) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(LEASES).where(*self._are(trials)).values(touched=func.now()))

    def end(self, trials: Sequence[int], tenure: Tenure) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(LEASES).where(*self._are(trials)).values(tenure=tenure.value))

    def tenures(self) -> dict[int, Tenure]:
        age = func.extract("epoch", func.now() - LEASES.c.touched)
        columns = (LEASES.c.trial, LEASES.c.holder, LEASES.c.tenure, age)
        with self._engine.connect() as connection:
            rows = connection.execute(select(*columns).where(LEASES.c.study == self._study)).all()
        return {trial: _tenure(said, Tenure(tenure), float(seconds)) for trial, said, tenure, seconds in rows}

    def __len__(self) -> int:
        counted = select(func.count()).select_from(LEASES).where(LEASES.c.study == self._study)
        with self._engine.connect() as connection:
            return connection.scalar(counted) or 0

    def _are(self, trials: Sequence[int]) -> tuple[ColumnElement[bool], ...]:
        return LEASES.c.study == self._study, LEASES.c.trial.in_(trials)


def _tenure(said: str, tenure: Tenure, age: float) -> Tenure:
    if tenure == Tenure.HELD and (age > leases.LEASE or leases.is_dead(said)):
        return Tenure.LOST
    return tenure
