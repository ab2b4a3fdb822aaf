"""The gain of a whole change, shared out among its parts after Shapley."""

import itertools
from collections.abc import Sequence
from math import comb

from dynops.ablation.claims import Difference
from dynops.ablation.contrasts import Structure, combine, weights
from dynops.errors import SpecError


def shares(change: Sequence[Difference], design: Structure) -> list[dict[str, float]]:
    """Return the weights of each part's Shapley share in the gain of a whole change.

    A share averages what a part adds over all orders in which the parts can be changed, so that the shares add up to
    the whole gain, whatever interacts. With k parts, that of part i sums over the sets S of other parts
    |S|! (k - |S| - 1)! / k! times what i adds where S has changed and the rest has not; factors that do not change are
    averaged over.

    Args:
        change: for each part, its factor with the level after and before.
        design: the plan, or the factors of a full factorial.
    Raises:
        SpecError: two parts change one factor, a part holds another, or one does not fit the factors.
    Source: Shapley, A value for n-person games, 1953.
    """
    names = [part.factor for part in change]
    if len(set(names)) != len(names):
        raise SpecError(f"change has factors {', '.join(names)}: must change each factor once.")
    for part in change:
        if part.at:
            raise SpecError(f"change has {part!r}: a part of a whole change holds no other factor. Leave `at` out.")
    return [_share(part, [other for other in change if other is not part], design) for part in change]


def whole(change: Sequence[Difference], design: Structure) -> dict[str, float]:
    """Return the weights of the gain of a whole change; arguments and errors as in `shares`."""
    return combine([(1.0, share) for share in shares(change, design)])


def _share(part: Difference, others: list[Difference], design: Structure) -> dict[str, float]:
    terms = []
    for size in range(len(others) + 1):
        coefficient = 1 / (len(others) + 1) / comb(len(others), size)
        for changed in itertools.combinations(others, size):
            at = tuple((other.factor, other.high if other in changed else other.low) for other in others)
            terms.append((coefficient, weights(Difference(part.factor, part.high, part.low, at=at), design)))
    return combine(terms)
