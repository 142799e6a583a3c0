"""python generate.py run=runs/<name> [prompt="…"] [mode=chat]: generate text with a model.

python generate.py run=runs/quickstart                                   # interactive session
python generate.py run=runs/quickstart prompt="class " max_new_tokens=80
python generate.py run=runs/quickstart mode=chat prompt="What does json.load do?"
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt
    from running.openmp_spin_count import set_openmp_spin_count

    exit_on_interrupt()
    set_openmp_spin_count()

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="generate")
def main(config: DictConfig) -> None:
    command_runner.run_command("running.commands.generate:generate", config, prints_result=True)


if __name__ == "__main__":
    command_runner.run_command_line(main, "generate")
