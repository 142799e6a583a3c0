"""Predict the best mix from runs with many mixes: fit a law per validation loss, estimate its errors, and search the
best mix.

    limits --design_mixes--> the mixes to train first
    runs of a sweep, or tables --read_mix_runs--> MixRuns --fit_mix_law--> MixLaw --find_best_mix--> BestMix
    BestMix --> mix_law.html, best_mix.yaml
"""

from mix_laws.best_mix_search import BestMix, SearchTarget, find_best_mix
from mix_laws.curriculum_yaml import write_constant_mix
from mix_laws.experiment_design import design_mixes
from mix_laws.fit_data import MixRuns, read_mix_runs
from mix_laws.fitted_mix_law import MixLaw, fit_mix_law
from mix_laws.mix_law_page import write_mix_law_page
from mix_laws.mix_law_report import write_and_print_mix_law

__all__ = [
    "BestMix",
    "MixLaw",
    "MixRuns",
    "SearchTarget",
    "design_mixes",
    "find_best_mix",
    "fit_mix_law",
    "read_mix_runs",
    "write_and_print_mix_law",
    "write_constant_mix",
    "write_mix_law_page",
]
