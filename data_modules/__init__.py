"""Data pipeline: documents to batches.

    corpora ──documents──> preparation ──shards──> MixedDataModule ──batches──> the model
                                                        │
                curriculum.weights(step) ──> order.locate(i) = (source, epoch, sequence)

The shards are written once and read by many runs. Everything to the right of them is a pure function of the config and
the seed, so a run's position is one integer, its completed steps, and nothing else is saved or restored.

`data_modules.mixed_data_module` is imported by its own name: it alone needs torch, which workers that prepare do not load.
"""

from data_modules.curriculum import Curriculum, ResolvedCurriculum
from data_modules.memory_mapped_shards import SourceShards
from data_modules.sample_order import SampleOrder

__all__ = ["Curriculum", "ResolvedCurriculum", "SampleOrder", "SourceShards"]
