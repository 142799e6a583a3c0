"""Every curriculum that ships does what the first line of its file says."""

import pytest

from data_modules import Curriculum
from running.config.compose import compose_config, group_choices

TARGET = {"cosmopedia": 0.687, "alpaca": 0.013, "python": 0.3}
SWITCHED = {"c4": 0.9, "cosmopedia": 0.066, "alpaca": 0.004, "python": 0.03}
SETTLED = {"c4": 0.2, "cosmopedia": 0.547, "alpaca": 0.013, "python": 0.24}


def blend(base: float) -> dict[str, float]:
    """So much of the base, and the target for the rest."""
    return {"c4": base} | {source: (1 - base) * weight for source, weight in TARGET.items()}


SHIPPED: dict[str, dict[int, dict[str, float]]] = {  # the mix after so many steps of a thousand
    "ado": {0: blend(0.5), 999: blend(0.5)},  # as long as no loss moves it
    "abrupt": {0: blend(1), 599: blend(1), 600: blend(0), 999: blend(0)},
    "anneal": {0: blend(1), 899: blend(1), 900: blend(0.3), 999: blend(0.3)},
    "constant": {0: blend(1), 999: blend(1)},
    "gradual": {0: blend(1), 300: blend(0.95), 600: blend(0.9), 700: blend(0.45), 800: blend(0), 999: blend(0)},
    "gradual_replay": {0: blend(1), 600: blend(0.9), 700: blend(0.55), 800: blend(0.2), 999: blend(0.2)},
    "mixed": {0: blend(1), 600: SWITCHED, 700: {s: (SWITCHED[s] + SETTLED[s]) / 2 for s in SETTLED}, 800: SETTLED},
    "replay": {0: blend(1), 599: blend(1), 600: blend(0.2), 999: blend(0.2)},
    "unimax": {at: dict.fromkeys(SETTLED, 0.25) for at in (0, 500, 999)},
    "quickstart": {
        0: {"readmes": 0.5, "stdlib": 0.5},
        400: {"readmes": 0.4, "stdlib": 0.4, "pydoc": 0.1, "docstrings": 0.1},
        700: {"readmes": 0.2, "stdlib": 0.2, "pydoc": 0.3, "docstrings": 0.3},
    },
}
REDISTRIBUTE = ("redistribute", {"alpaca": 4})
RULES = {"ado": REDISTRIBUTE, "anneal": REDISTRIBUTE, "unimax": ("spread", dict.fromkeys(SETTLED, 4))}


@pytest.mark.parametrize("name", group_choices("curriculum"))
def test_a_curriculum_that_ships_does_what_its_first_line_says(name: str) -> None:
    experiment = "quickstart" if name == "quickstart" else "mixed_curriculum"
    config = compose_config("train", [f"experiment={experiment}", f"curriculum={name}"])
    curriculum = Curriculum(**config["curriculum"])
    resolved = curriculum.resolve(steps=1000, tokens_per_step=1)
    for step, shares in SHIPPED[name].items():
        mix = {source: share for source, share in resolved.weights(step).items() if share}
        assert mix == pytest.approx({source: share for source, share in shares.items() if share})
    if experiment == "mixed_curriculum":
        limits = {"alpaca": 4} if "alpaca" in curriculum.sources else {}
        assert (curriculum.on_exhausted, curriculum.limits) == RULES.get(name, ("error", limits))
