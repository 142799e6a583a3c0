"""python report.py [run=runs/<name>]: plots and a summary of a run.

python report.py runs=runs/lr_sweep [out_dir=…]: a page that compares many runs.
python report.py mix_law=runs/mix_sweep [out_dir=…]: fits a mix law (how losses depend on the mix) and prints
the best mix that it predicts.
python report.py log_dir=… [out_dir=… pattern='training_*.log']: merges text logs of training runs into two JSON
files and a plot.

python report.py run=runs/quickstart
python report.py runs=runs/lr_sweep                                      # which differences are larger than the noise?
python report.py log_dir=old_logs 'pattern=*.log' out_dir=old_report
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt

    exit_on_interrupt()

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="report")
def main(config: DictConfig) -> None:
    command_runner.run_command("running.commands.report:report", config, prints_result=True)


if __name__ == "__main__":
    command_runner.run_command_line(main, "report")
