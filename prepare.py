"""python prepare.py [source=…] [tokenizer=…] [mode=…]: turn documents into shards; a complete source is left unchanged.

python prepare.py                                                        # the sources of the quickstart
python prepare.py source=local path=my_texts tokenizer=gpt2              # a file, a folder or a pattern
python prepare.py source=alpaca tokenizer=gpt2_chatml mode=inspect       # show what a source contains
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt

    exit_on_interrupt()

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="prepare")
def main(config: DictConfig) -> None:
    command_runner.run_command("running.commands.prepare:prepare", config)


if __name__ == "__main__":
    command_runner.run_command_line(main, "prepare")
