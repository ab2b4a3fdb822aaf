"""How a study is run: by this process, by several, or by a cluster; with the same options for all studies."""

from collections.abc import Callable
from pathlib import Path

from dynops.ablation import Ray, Study
from dynops.errors import SpecError
from dynops.records import RunRecord


def execute(
    maker: Callable[[], Study],
    folder: Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    cpus: float = 1.0,
    gpus: float | None = None,
    storage: str | None = None,
    devices: int = 1,
    retry_failed: bool = False,
) -> list[RunRecord]:
    """Run a study, or go on with it, and return its records.

    Args:
        maker: makes it: a function of a module, or a partial of one with plain arguments, so that others can join.
        folder: where records and report go.
        workers: how many processes share the study on this machine, each with its share of the cores and, in turn, a
            GPU; 1 by default, 0 writes the plan alone. On a cluster the most that run at once, by default as many as it
            holds. `dynops worker` with the folder joins in from this or another machine.
        ray: address of a Ray cluster whose nodes run the study; `auto` is the one that runs on this machine.
        cpus: CPUs that each run has on a cluster.
        gpus: GPUs that each run has on a cluster, or a share of one, so that small runs have one together; by default
            as many as its devices, if the cluster has any.
        storage: `postgresql://user@host/database` where workers meet who see no common folder; the password comes from
            PGPASSWORD or ~/.pgpass.
        devices: GPUs, or processes on a CPU, that train one run together.
        retry_failed: run the points that failed again, and nothing else.
    """
    if ray is None and (cpus != 1.0 or gpus is not None):
        raise SpecError(f"cpus has {cpus}, gpus has {gpus}: are those of a cluster's runs. Say --ray as well.")
    if gpus is None and devices > 1:
        gpus = devices
    crew = (1 if workers is None else workers) if ray is None else Ray(address=ray, cpus=cpus, gpus=gpus, most=workers)
    return maker().execute(folder, crew, storage=storage, devices=devices, retry_failed=retry_failed, maker=maker)
