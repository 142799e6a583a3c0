"""python evaluate.py run=runs/<name> [tasks=[perplexity,hellaswag] …]: evaluate a model, with confidence intervals.

python evaluate.py run=runs/quickstart                                   # the validation splits of its sources
python evaluate.py run=runs/quickstart data=my_text.txt                  # any text
python evaluate.py run=exported/quickstart tasks=[hellaswag,arc_easy] limit=200
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt
    from running.openmp_spin_count import set_openmp_spin_count

    exit_on_interrupt()
    set_openmp_spin_count()

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    command_runner.run_command("running.commands.evaluate:evaluate_on_ranks", config, prints_result=True)


if __name__ == "__main__":
    command_runner.run_command_line(main, "evaluate")
