"""Detect steps whose loss or gradient norm is an outlier compared with the steps before."""

from collections import deque
from math import fsum, sqrt

WINDOW, SIGMAS = 128, 6.0


class SpikeDetector:
    """Compare each step with the losses and gradient norms of the last 128 steps, as OLMo's SkipStepOptimizer does.

    Outliers enter the window too. If the loss rises permanently, for example when the mix of sources changes, the
    distribution widens and the new level soon stops being an outlier.
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def judge(self, loss: float, norm: float) -> str | None:
        """Add a step. Returns why the step is an outlier; None if it is not, or if the window has fewer than 128 steps."""
        reasons = [
            f"its {what} {value:.4g} is {distance:.1f} standard deviations above the mean of the last {WINDOW}"
            for what, value, seen in (("loss", loss, self._losses), ("gradient norm", norm, self._norms))
            if len(seen) == WINDOW and (distance := _distance(value, seen)) > SIGMAS
        ]
        self._losses.append(loss)
        self._norms.append(norm)
        return " and ".join(reasons) or None

    def state(self) -> dict[str, list[float]]:
        """Return the window, for a checkpoint."""
        return {"losses": list(self._losses), "norms": list(self._norms)}

    def remember(self, state: dict[str, list[float]]) -> None:
        """Restore the window from the result of `state`."""
        self._losses.extend(state["losses"])
        self._norms.extend(state["norms"])


def _distance(value: float, seen: deque[float]) -> float:
    """Return how many standard deviations a value lies above the mean of the window."""
    mean = fsum(seen) / len(seen)
    deviation = sqrt(fsum((other - mean) ** 2 for other in seen) / (len(seen) - 1))
    return (value - mean) / max(deviation, 1e-12)
