"""Read and plot finished and running runs. This needs no torch: a run writes JSON, JSON Lines and a text log."""
