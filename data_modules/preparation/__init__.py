"""Convert documents to shards.

    chunks ──workers──> tokens, in order ──ShardWriter──> parts ──join──> shards + source.json

The workers assign each document to a split by a hash of its text, and tokenize it. A part is committed every few seconds,
and an interrupted preparation continues after the last commit; the resulting bytes are the same. The source appears under
its name only when it is complete.
"""

from data_modules.preparation.preparation_settings import PreparationSettings
from data_modules.preparation.preparation_target import PreparationTarget
from data_modules.preparation.prepare_source import PartitionedPreparation, adopt_shards, prepare_source
from data_modules.preparation.progress import PreparationProgress, progress_display

__all__ = [
    "PartitionedPreparation",
    "PreparationProgress",
    "PreparationSettings",
    "PreparationTarget",
    "adopt_shards",
    "prepare_source",
    "progress_display",
]
