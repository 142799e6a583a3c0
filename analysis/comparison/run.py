"""One of many runs, as far as it could be read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.comparison.evaluation_section import EvaluatedMetric
from analysis.comparison.run_settings import ABSENT, SEED, described_settings, result_settings, setting_text
from analysis.metrics_reader import LoggedMetrics


class RunState(StrEnum):
    """The state of a run."""

    DONE = "done"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    PRUNED = "pruned"
    ENDED_EARLY = "ended early"
    EMPTY = "no step logged"
    BROKEN = "broken"
    MISSING = "missing"


@dataclass(frozen=True)
class Run:
    """One run, as far as it could be read."""

    path: Path
    name: str
    """Path of the run below the folder that contains all runs of the comparison."""
    state: RunState
    note: str = ""
    """Why the run is in this state, and other remarks."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name, without `PATH_SETTINGS`; empty if config.yaml could not be read."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: LoggedMetrics = field(default_factory=LoggedMetrics)
    samples: tuple[Mapping[str, Any], ...] = ()
    figures: tuple[EvaluatedMetric, ...] = ()
    """Results of evaluate.py."""
    trunk: Mapping[str, Any] | None = None
    """Settings that affect the result of the trunk, if this run is a branch; None if there is no trunk or it is
    unreadable."""
    n_parameters: int = 0
    flops_per_token: float = 0.0

    @cached_property
    def described(self) -> dict[str, Any]:
        """The run's settings, and the parts of its environment that the results may depend on."""
        return described_settings(self.settings, self.environment)

    @cached_property
    def deciding(self) -> dict[str, Any]:
        """The entries of `described` that affect the run's result, without the seed."""
        return result_settings(self.settings, self.environment, self.trunk)

    @property
    def seed(self) -> str:
        """The seed as text."""
        return setting_text(self.settings.get(SEED, ABSENT))

    @property
    def steps(self) -> int:
        """Length of the schedule in steps; 0 if config.yaml could not be read."""
        return int(self.settings.get("max_steps", 0))

    @property
    def tokens_per_step(self) -> int:
        """Tokens per step, including padding."""
        return int(self.settings["global_batch"] * self.settings["model.max_seq_len"])

    @property
    def last_step(self) -> int:
        """The last logged step; 0 if there is none."""
        return self.metrics.last_step

    @cached_property
    def final(self) -> Mapping[str, float]:
        """The validation after the last step of a finished run: `val/<kind>/<source>`; empty if there is none."""
        if self.state is not RunState.DONE:
            return {}
        return {key: value for key, value in self.metrics.at(self.last_step).items() if key.startswith("val/")}

    def hours_at(self, steps: np.ndarray) -> np.ndarray:
        """Hours of training only, up to each step: tokens divided by speed, summed over the rows; NaN where unknown.

        Args:
            steps: (n,).

        Returns:
            Hours, (n,).
        """
        at, speeds = self.metrics.series("speed/tokens_per_s")
        known = np.isfinite(speeds) & (speeds > 0)
        if not known.any():
            return np.full(len(steps), math.nan)
        at, speeds = at[known], speeds[known]
        begin = float(self.settings.get("branch.step") or 0)  # the trunk's time does not count
        seconds = np.cumsum(np.diff(at, prepend=begin) * self.tokens_per_step / speeds)
        hours: np.ndarray = np.interp(steps, [begin, *at], [0.0, *(seconds / 3600)], right=math.nan)
        return hours
