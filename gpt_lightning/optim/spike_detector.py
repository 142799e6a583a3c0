"""Which steps are outliers beside those before them."""

from collections import deque
from math import fsum, sqrt

WINDOW, SIGMAS = 128, 6.0


class SpikeDetector:
    """Remembers the losses and gradient norms of the last 128 steps and says which stand out, as OLMo's SkipStepOptimizer does.

    Steps that stand out are remembered like the others: a loss that has risen for good, as where another mix of sources begins,
    widens the distribution and is soon no outlier any more.
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def judge(self, loss: float, norm: float) -> str | None:
        """Why the step stands out, and remember it; None: it does not, or there are not yet 128 to compare it with."""
        reasons = [
            f"its {what} {value:.4g} is {distance:.1f} standard deviations above the mean of the last {WINDOW}"
            for what, value, seen in (("loss", loss, self._losses), ("gradient norm", norm, self._norms))
            if len(seen) == WINDOW and (distance := _distance(value, seen)) > SIGMAS
        ]
        self._losses.append(loss)
        self._norms.append(norm)
        return " and ".join(reasons) or None

    def state(self) -> dict[str, list[float]]:
        """What it remembers, for a checkpoint."""
        return {"losses": list(self._losses), "norms": list(self._norms)}

    def remember(self, state: dict[str, list[float]]) -> None:
        """Go on from what `state` gave."""
        self._losses.extend(state["losses"])
        self._norms.extend(state["norms"])


def _distance(value: float, seen: deque[float]) -> float:
    """How many standard deviations a value lies above a mean."""
    mean = fsum(seen) / len(seen)
    deviation = sqrt(fsum((other - mean) ** 2 for other in seen) / (len(seen) - 1))
    return (value - mean) / max(deviation, 1e-12)
