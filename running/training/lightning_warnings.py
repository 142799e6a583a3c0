"""Suppress Lightning's messages that do not apply to a run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress advice of Lightning that does not apply here, for the reason given with each.

    Other messages are shown.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)  # hides banners about missing hardware and ranks
    try:
        with warnings.catch_warnings():
            # memory-mapped shards are read in place; workers help with slow disks only
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # our loader starts at the completed steps
            warnings.filterwarnings("ignore", message=".*ended before the epoch ended and your dataloader is.*")
            # Lightning 2.6 uses a name of torch that will change
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # changes.jsonl records a removed callback, and a start without one that averages weights is refused
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
            # the weights are not sharded here: averaging of sharded weights is refused
            warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
