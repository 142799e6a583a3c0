"""From runs of many mixes to the mix to train: a law for each validation loss, how far to trust it, and the best mix under it.

runs of a sweep, or tables --read_mix_runs--> MixRuns --fit--> MixLaw --find_best--> Best --write_mix_law--> page, best_mix.yaml
caps --design_mixes--> the mixes to run first
"""

from analysis.mix_law.best import Aim, Best, find_best
from analysis.mix_law.curriculum_file import write_constant_mix
from analysis.mix_law.design import design_mixes
from analysis.mix_law.law import MixLaw, fit
from analysis.mix_law.page import write_mix_law
from analysis.mix_law.runs import MixRuns, read_mix_runs
from analysis.mix_law.terminal import report_mix_law

__all__ = [
    "Aim",
    "Best",
    "MixLaw",
    "MixRuns",
    "design_mixes",
    "find_best",
    "fit",
    "read_mix_runs",
    "report_mix_law",
    "write_constant_mix",
    "write_mix_law",
]
