"""python prepare.py [source=…] [tokenizer=…] [mode=…]: documents to shards, once; what is complete is left alone.

python prepare.py                                                        # all that the quickstart reads
python prepare.py source=local path=my_texts tokenizer=gpt2              # a file, a folder or a pattern
python prepare.py source=alpaca tokenizer=gpt2_chatml mode=inspect       # what is in it
"""

if __name__ == "__main__":  # before all that takes seconds to import
    from running.interrupts import exit_on_interrupt

    exit_on_interrupt()

import hydra
from omegaconf import DictConfig

import cli


@hydra.main(version_base=None, config_path="conf", config_name="prepare")
def main(config: DictConfig) -> None:
    cli.run_command("running.commands.prepare:prepare", config)


if __name__ == "__main__":
    cli.run_command_line(main, "prepare")
