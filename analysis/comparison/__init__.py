"""Compare many runs: which is best, and is the difference larger than the noise?

run directories --read_runs--> Runs, including broken ones --Comparison--> comparable runs and their ranking
                                                               --write_comparison_page--> one HTML page
"""

from analysis.comparison.comparison import Comparison
from analysis.comparison.comparison_page import write_comparison_page
from analysis.comparison.comparison_report import standings_table, write_and_print_comparison
from analysis.comparison.find_runs import common_folder, find_runs
from analysis.comparison.read_runs import read_runs
from analysis.comparison.verdict_text import seed_noise_sentences, verdict_sentence

__all__ = [
    "Comparison",
    "common_folder",
    "find_runs",
    "read_runs",
    "seed_noise_sentences",
    "standings_table",
    "verdict_sentence",
    "write_and_print_comparison",
    "write_comparison_page",
]
