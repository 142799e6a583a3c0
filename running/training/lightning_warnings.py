"""What Lightning says that does not hold in a run of ours."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's advice that does not hold here, each for its reason; everything else it says is heard."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)  # banners: of hardware that is not there, of ranks
    try:
        with warnings.catch_warnings():
            # windows of memory-mapped shards are read in place: workers are for slow disks
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # our loader begins where the completed steps say
            warnings.filterwarnings("ignore", message=".*ended before the epoch ended and your dataloader is.*")
            # Lightning 2.6 calls a part of torch that is to change its name
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # a callback that was left out is in changes.jsonl; without one that averages weights the start is refused
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
            # they are whole: with sharded ones it is refused
            warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
