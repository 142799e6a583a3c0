"""python train.py [experiment=…] [key=value …]: train a model, or resume the run of the same name.

python train.py experiment=quickstart                                    # minutes on two cores, without a download
python train.py experiment=quickstart name=warmer optimizer.lr=6e-3      # a new run with another setting
python train.py -m experiment=lr_sweep jobs_at_once=2                    # a sweep, two jobs at a time
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt
    from running.openmp_spin_count import set_openmp_spin_count

    exit_on_interrupt()
    set_openmp_spin_count()

import os
import signal
from typing import Any

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(config: DictConfig) -> Any:
    return command_runner.run_command("running.commands.train:train_on_ranks", config)


if __name__ == "__main__":
    for number in (
        signal.SIGUSR1,
        signal.SIGHUP,
    ):  # until training handles them: exit with a code that means "resumable"
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(143))
    command_runner.run_command_line(main, "train", after_multirun="running.commands.train:print_outcome")
