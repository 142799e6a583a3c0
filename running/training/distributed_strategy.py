"""Lightning's settings for distributing a run over ranks."""

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy

from gpt_lightning.sharding import ShardedStrategy
from running.config.run_config import RunConfig
from running.training.rank_processes import PATIENCE, detect_launcher


def build_strategy(config: RunConfig) -> str | Strategy:
    """The value for `L.Trainer(strategy=…)`. With a single rank, all strategies are the same.

    Args:
        config: config of the run.
    """
    n_ranks = config.trainer.devices * config.trainer.num_nodes
    if n_ranks == 1:
        return "auto"
    if config.trainer.strategy == "fsdp":
        return ShardedStrategy(n_ranks=n_ranks, timeout=PATIENCE)
    return DDPStrategy(timeout=PATIENCE)


def cluster_environment() -> ClusterEnvironment:
    """Plugin for `L.Trainer(plugins=[…])` that tells Lightning which rank this process is.

    In a Slurm job, Lightning would by default wait for the job's tasks, and requeue the job itself.
    """
    starter = detect_launcher()
    if starter == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if starter == "srun" else LightningEnvironment()
