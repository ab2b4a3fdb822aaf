"""Sign changes over a scale: against numpy and a grid of t tests, planted ones recovered."""

import numpy as np
import pytest

from dynops.ablation.statistics.scale import sign_change
from dynops.ablation.verdicts import p_different
from dynops.errors import ShapeError, SpecError

SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
CURVE = np.array([-2.0, -1.0, -0.5, 0.5, 1.5])
LEVEL = 0.05


def effects(n: int, noise: float, seed: int = 0, curve: np.ndarray = CURVE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return curve + noise * (generator.normal(size=(n, len(curve))) + generator.normal(size=(n, 1)))


def test_planted_sign_change_is_found_by_interpolation() -> None:
    found = sign_change(effects(4, 0.0), SCALES)
    assert found.single
    assert found.estimate == pytest.approx((0.1 * 0.3) ** 0.5)
    assert (found.low, found.high) == pytest.approx((found.estimate, found.estimate))
    assert found.reach == "closed"


def test_sign_change_at_a_scale_is_that_scale() -> None:
    found = sign_change(np.stack([[-1.0, 0.0, 2.0]] * 3), (1, 2, 8))
    assert (found.crossings, found.estimate, found.low, found.high) == pytest.approx((1, 2.0, 2.0, 2.0))


def test_interval_is_that_of_a_t_test_at_every_point() -> None:
    grid = np.linspace(np.log2(SCALES[0]), np.log2(SCALES[-1]), 4001)
    reaches = set()
    for seed in range(40):
        values = effects(5, (0.3, 0.8, 2.0)[seed % 3], seed)
        each = np.stack([np.interp(grid, np.log2(SCALES), row) for row in values], axis=-1)
        accepted = grid[p_different(each) >= LEVEL]
        found = sign_change(values, SCALES, LEVEL)
        reaches.add(found.reach)
        if not len(accepted):
            assert found.reach == "empty"
            continue
        low = SCALES[0] if found.low is None else found.low
        high = SCALES[-1] if found.high is None else found.high
        assert np.log2([low, high]) == pytest.approx([accepted[0], accepted[-1]], abs=2 * (grid[1] - grid[0]))
        assert (found.low is None) == (accepted[0] == grid[0])
        assert (found.high is None) == (accepted[-1] == grid[-1])
    assert {"closed", "open above", "open"} <= reaches


def test_interval_is_open_where_the_last_scale_may_be_the_sign_change() -> None:
    values = effects(5, 0.1, curve=np.array([2.0, 1.5, 1.0, 0.5, 0.0]))
    found = sign_change(values, SCALES)
    assert found.reach == "open above"
    assert found.high is None
    assert 0.3 < (found.low or 0) < 1.0


def test_effect_of_one_sign_has_no_sign_change() -> None:
    found = sign_change(5 + effects(5, 0.1), SCALES)
    assert (found.crossings, found.estimate, found.low, found.high, found.reach) == (0, None, None, None, "empty")
    assert not found.single


def test_no_effect_at_all_may_change_its_sign_anywhere() -> None:
    found = sign_change(np.zeros((4, 5)), SCALES)
    assert (found.crossings, found.estimate, found.reach) == (0, None, "open")


def test_several_sign_changes_have_no_estimate() -> None:
    found = sign_change(effects(5, 0.01, curve=np.array([-1.0, 1.0, -1.0, 1.0, 1.0])), SCALES)
    assert (found.crossings, found.estimate, found.single) == (3, None, False)
    assert 0.01 < (found.low or 0) < 0.03
    assert 0.1 < (found.high or 0) < 0.3


def test_order_of_the_scales_does_not_matter() -> None:
    values, order = effects(5, 0.3), [3, 0, 4, 2, 1]
    assert sign_change(values[:, order], [SCALES[i] for i in order]) == sign_change(values, SCALES)


def test_sign_change_of_two_seeds_has_no_interval() -> None:
    found = sign_change(effects(2, 0.1), SCALES)
    assert (found.reach, found.low, found.high) == ("unknown", None, None)
    assert found.estimate is not None


@pytest.mark.parametrize("n", [3, 8])
def test_95_percent_intervals_hold_the_sign_change_in_94_percent_or_more(n: int) -> None:
    truth, hits = (0.1 * 0.3) ** 0.5, []
    for seed in range(1000):
        found = sign_change(effects(n, 0.7, seed), SCALES, LEVEL)
        hits.append(found.reach != "empty" and (found.low or 0) <= truth <= (found.high or 2))
    assert np.mean(hits) > 0.95 - 4 * (0.05 * 0.95 / 1000) ** 0.5


def test_mistakes_in_scales_are_said() -> None:
    with pytest.raises(ShapeError, match=r"^values has 5 columns, scale has 2 scales: must be as many\.$"):
        sign_change(effects(3, 0.1), (1, 2))
    with pytest.raises(ShapeError, match=r"^values has shape \(5,\): must have the axes `n m`, none of them empty\.$"):
        sign_change(CURVE, SCALES)
    for scale in ((0.0, 1.0), (1.0, 1.0)):
        with pytest.raises(SpecError, match=r"^scale has .*: must be two or more, positive and all different\.$"):
            sign_change(np.ones((3, 2)), scale)
    with pytest.raises(SpecError, match=r"^scale has \(1\.0,\): must be two or more"):
        sign_change(np.ones((3, 1)), (1,))
