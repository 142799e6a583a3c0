"""Reading finished and running runs. Needs no torch: what a run wrote is JSON lines, JSON and a log."""

from analysis.log_report import LogReport, report_logs
from analysis.pictures import draw_curves, draw_mix, draw_perplexity
from analysis.run_record import RunRecord

__all__ = ["LogReport", "RunRecord", "draw_curves", "draw_mix", "draw_perplexity", "report_logs"]
