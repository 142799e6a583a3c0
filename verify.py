"""python verify.py experiment=…: check that a run that is killed and resumed elsewhere equals an uninterrupted run.

python verify.py experiment=quickstart
python verify.py experiment=quickstart verify.steps=8 verify.devices=1
python verify.py experiment=mixed_curriculum verify.devices=4 verify.micro_batch=4
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt
    from running.openmp_spin_count import set_openmp_spin_count

    exit_on_interrupt()
    set_openmp_spin_count()

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="verify")
def main(config: DictConfig) -> None:
    command_runner.run_command("running.commands.verify:verify", config, prints_result=True)


if __name__ == "__main__":
    command_runner.run_command_line(main, "verify")
