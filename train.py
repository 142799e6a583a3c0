"""python train.py [experiment=…] [key=value …]: train a model, or go on with the run of the same name."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import hydra
from omegaconf import DictConfig

import launch
from gpt_lightning.on_disk import locked
from ranks import is_first_rank, run_on_ranks, started_by


def train(config: Mapping[str, Any]) -> dict[str, float]:
    """Run or resume the training that a config describes; return its final metrics.

    Everything that can be refused is refused before anything is built or written.

    Raises:
        ValueError: a setting is wrong, a source is not prepared, or the run directory belongs to another run or process.
        Stopped, NotFinite, NotSaved: it ended before its last step; their `exit_code` says so to the shell.
    """
    run = launch.path_of(config, "run_dir")
    n_ranks = config["trainer"]["devices"]
    if isinstance(n_ranks, int) and n_ranks > 1 and config["trainer"]["num_nodes"] == 1 and not started_by():
        run_on_ranks(n_ranks)
        from run_directory import RunDirectory

        return RunDirectory(run).final_metrics()
    with locked(run, doing="trained") if is_first_rank() else nullcontext():
        from training import run_training  # seconds of imports, which a second process need not wait for

        return run_training(config)


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    launch.run(train, config)


if __name__ == "__main__":
    launch.start(main, "train")
