"""The probes separate operators that can know the answer from those that cannot."""

from pathlib import Path

import pytest
import torch

from dynops import parameters, zoo
from dynops.ablation import Job, read_study
from dynops.errors import SpecError
from dynops.records import RunRecord
from dynops.training import Experiment
from studies import probes

COUNTS = {
    "static_shared": 9,
    "static_specific": 72,
    "constant_specific": 2224,
    "position_shared": 5817,
    "global_shared": 633,
    "pixel_shared": 633,
    "pixel_specific": 2208,
    "window_shared": 2953,
    "static_plus_pixel": 705,
    "static_times_pixel": 705,
}


def run(job: Job) -> RunRecord:
    assert isinstance(job.spec, Experiment)
    return job.spec.run(job.seed, accelerator="cpu")


@pytest.mark.parametrize("operator", COUNTS)
def test_an_operator_has_the_parameters_of_the_published_table(operator: str) -> None:
    module = probes.SUBJECTS[operator].network.build((16, 18, 18), 8)
    assert parameters(module) == COUNTS[operator]


@pytest.mark.parametrize("operator", probes.SUBJECTS)
def test_every_subject_maps_inputs_to_targets(operator: str) -> None:
    network = probes.SUBJECTS[operator].network
    assert type(network).from_json(network.to_json()) == network
    assert network.build((16, 18, 18), 8)(torch.randn(2, 16, 18, 18)).shape == (2, 8, 18, 18)


def test_the_whole_family_is_probed() -> None:
    family = {operator.__name__ for operator in zoo.FAMILY}
    assert family <= set(probes.SUBJECTS)


def test_operators_reach_what_theory_says(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    operators, tasks = ("static_shared", "static_specific", "pixel_shared", "pixel_4_contiguous"), ("channel", "pixel")
    records = probes.study(300, 1, run, operators, tasks).execute(tmp_path)
    torch.set_num_threads(threads)
    for record in records:
        expected = probes.theory(record.levels["operator"], record.levels["task"])
        assert expected is not None
        assert record.metrics["loss"] == pytest.approx(expected, abs=probes.TOLERANCE), record.cell
    head, rows = probes.table(read_study(tmp_path)[1])
    assert head == ["operator", "parameters", *tasks]
    assert [row[0] for row in rows] == list(operators)
    assert [row[1] for row in rows] == ["9", "72", "633", str(24 * 16 + 24 + 24 * 36 + 36)]
    assert not [cell for row in rows for cell in row if "(" in cell]


def test_the_table_shows_where_theory_and_measurement_part() -> None:
    levels = {"task": "pixel", "operator": "pixel_shared"}
    record = RunRecord(levels=levels, seed=0, status="complete", metrics={"loss": 0.3}, parameters=633)
    assert probes.table([record])[1] == [["pixel_shared", "633", "0.300 (0.00)"]]


def test_a_table_needs_a_result() -> None:
    record = RunRecord(levels={}, seed=0, status="failed", reason="planted")
    with pytest.raises(SpecError, match="records has 1 records: must hold a result"):
        probes.table([record])


def test_an_odd_number_of_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="steps has 3: must be an even number of at least 2"):
        probes.main(steps=3, folder=tmp_path)
