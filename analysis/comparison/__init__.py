"""Compare many runs: which is best, and is the difference more than noise?

run directories --read_runs--> Runs, broken ones too --Comparison--> which compare, how they rank
                                                               --write_comparison_page--> one HTML page
"""

from analysis.comparison.comparison import Comparison
from analysis.comparison.comparison_page import write_comparison_page
from analysis.comparison.console_report import print_comparison_report, standings_table
from analysis.comparison.find_runs import common_folder, find_runs
from analysis.comparison.read_runs import read_runs
from analysis.comparison.verdict_text import noise_sentences, verdict_sentence

__all__ = [
    "Comparison",
    "common_folder",
    "find_runs",
    "noise_sentences",
    "print_comparison_report",
    "read_runs",
    "standings_table",
    "verdict_sentence",
    "write_comparison_page",
]
