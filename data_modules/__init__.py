"""Data pipeline: documents to batches.

    corpora ──documents──> preparation ──shards──> MixedDataModule ──batches──> the model
                                                        │
                curriculum.weights(step) ──> order.locate(i) = (source, epoch, sequence)

    corpora/        documents from files, the Hub and Python code
    preparation/    documents -> tokens -> shards
    shards/         the prepared files, and sequences in them
    order/          curriculum -> mix weights -> order of the sequences
    here            batches: MixedDataModule and what it reads with

Shards are written once and read by many runs. Everything after them is a pure function of the config and the seed. So
the position of a run is one integer, the number of completed steps; no other state is saved or restored.

Import `data_modules.mixed_data_module` separately: only this module needs torch, which preparation workers do not
load.
"""

from data_modules.order.curriculum import Curriculum, ResolvedCurriculum
from data_modules.order.sample_order import SampleOrder
from data_modules.shards.memory_mapped_shards import SourceShards

__all__ = ["Curriculum", "ResolvedCurriculum", "SampleOrder", "SourceShards"]
