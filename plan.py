"""python plan.py experiment=…: what a run would use, cost and reach; writes plan.png, plan.json.

python plan.py experiment=quickstart plan.device=cpu
python plan.py experiment=mixed_curriculum hardware=a100
python plan.py -m experiment=mix_sweep hardware=t4                       # a sweep, job by job
"""

if __name__ == "__main__":  # before slow imports
    from running.interrupts import exit_on_interrupt

    exit_on_interrupt()

from typing import Any

import hydra
from omegaconf import DictConfig

import command_runner


@hydra.main(version_base=None, config_path="conf", config_name="plan")
def main(config: DictConfig) -> Any:
    return command_runner.run_command(
        "running.commands.plan:plan", config, in_multirun="running.commands.plan:plan_silently", prints_result=True
    )


if __name__ == "__main__":
    command_runner.run_command_line(main, "plan", after_multirun="running.commands.plan:price")
