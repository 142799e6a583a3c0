"""python convert.py input=… output=… format=…: convert a model to another format.

python convert.py input=runs/quickstart output=exported/quickstart       # for transformers, as Llama
python convert.py input=runs/gpt2 output=exported/gpt2 format=gpt2
python convert.py input=exported/quickstart output=grown format=gpt_lightning vocab_size=8192
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt

    exit_on_interrupt()

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="convert")
def main(config: DictConfig) -> None:
    command_runner.run_command("running.commands.convert:convert", config)


if __name__ == "__main__":
    command_runner.run_command_line(main, "convert")
