"""Does a kernel that channels share help when data are scarce, and from how many images on does it hurt?

H3 comes from a talk on involution: sharing is a prior, right for few data and a bound for many. In the linear case a
shared kernel wins while n < k^2 + sigma^2 / (rho tau^2): the more alike the channels' own kernels are (small rho), the
longer. Shares of the data are regimes; all cells take the same number of steps.

    python -m studies.sharing_and_data
    python -m studies.sharing_and_data --data cifar10 --root data --seeds 10
"""

from dataclasses import replace
from typing import Any

from dynops import Channels, Dynamic, Static, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Interaction, Slope, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import MARGIN, Setting, operators, shares_of_data

SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
GENERATION = Difference("kernel", "pixel", "static")
OWN = Difference("channels", "per_channel", "grouped")


def study(setting: Setting) -> Study:
    """Return the study: kernel and channels varied, in each share of the data."""
    data = shares_of_data(setting, SHARES)
    fewest, most = next(iter(data.levels)), list(data.levels)[-1]
    scarce, plenty = replace(OWN, at=(("data", fewest),)), replace(OWN, at=(("data", most),))
    shared = Difference("channels", "grouped", "per_channel", at=scarce.at)
    return setting.study(
        zoo.depthwise(),
        name="sharing_and_data",
        question="Does sharing kernels over channels help when data are scarce, and hurt when they are not?",
        factors=(
            data,
            operators(
                "kernel",
                {
                    "static": lambda operator: replace(operator, kernel=Static()),
                    "pixel": lambda operator: replace(operator, kernel=Dynamic(context="pixel")),
                },
            ),
            operators(
                "channels",
                {
                    "grouped": lambda operator: replace(operator, channels=Channels("(g s)", s=16)),
                    "per_channel": lambda operator: replace(operator, channels=Channels("g")),
                },
            ),
        ),
        regimes=("data",),
        family=(OWN, scarce, plenty, Slope(OWN, "data"), GENERATION, Interaction(GENERATION, OWN)),
        hypotheses=(
            Hypothesis(
                "H3",
                "What a kernel of its own gains for a channel grows with the data.",
                (Exceeds((Slope(OWN, "data"),)),),
            ),
            Hypothesis(
                "H3-scarce",
                f"With the fewest data ({fewest}) sharing costs less than a point.",
                (Exceeds((shared,), margin=-MARGIN),),
            ),
            Hypothesis("H3-plenty", f"With the most data ({most}) sharing costs accuracy.", (Exceeds((plenty,)),)),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("sharing_and_data", study, **options)


if __name__ == "__main__":
    command(main, "Does sharing kernels over channels help when data are scarce?")
