"""Many runs beside each other: which is best, and is the difference real?

run directories --read_runs--> Runs, broken ones too --Comparison--> which compare, how they rank
                                                               --write_comparison--> one page of HTML
"""

from analysis.comparison.comparing import Comparison
from analysis.comparison.page import write_comparison
from analysis.comparison.reading import common_folder, find_runs, read_runs

__all__ = ["Comparison", "common_folder", "find_runs", "read_runs", "write_comparison"]
