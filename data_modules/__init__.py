"""Data pipeline: documents to batches.

    corpora ──documents──> preparation ──shards──> MixedDataModule ──batches──> the model
                                                        │
                curriculum.weights(step) ──> order.locate(i) = (source, epoch, sequence)

Shards are written once and read by many runs. Everything after them is a pure function of the config and the seed. A
run's position is therefore one integer, its completed steps; no other state is saved or restored.

Import `data_modules.mixed_data_module` separately: it is the only module that needs torch, which preparation workers do
not load.
"""

from data_modules.curriculum import Curriculum, ResolvedCurriculum
from data_modules.memory_mapped_shards import SourceShards
from data_modules.sample_order import SampleOrder

__all__ = ["Curriculum", "ResolvedCurriculum", "SampleOrder", "SourceShards"]
