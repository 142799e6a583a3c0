"""Reading finished and running runs. Needs no torch: what a run wrote is JSON lines, JSON and a log."""
