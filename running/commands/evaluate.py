"""evaluate.py: evaluate a model on tasks, with confidence intervals."""

import sys
from collections.abc import Mapping
from typing import Any

from gpt_lightning.console import say
from gpt_lightning.file_locks import exclusive_lock
from gpt_lightning.model_path_check import check_model_path
from running.config.command_configs import EvaluateConfig
from running.config.settings_parser import parse
from running.training.rank_processes import detect_launcher, fail_together, run_on_ranks


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the tasks, write evaluation.json and one file per task, and print the table.

    All checks run before any example is scored. To continue a stopped evaluation, call this again.

    Args:
        config: the composed settings of conf/evaluate.yaml and the command line.

    Returns:
        The content of evaluation.json.

    Raises:
        ValueError: a setting is wrong, the model cannot be read, a task is unknown, or the records of a task are
            missing.
    """
    settings = _checked(config)
    from running.evaluation.evaluate_model import evaluate_model  # torch takes seconds to import

    return evaluate_model(settings)


def evaluate_on_ranks(config: Mapping[str, Any]) -> None:
    """Call `evaluate`. With `devices` above 1 on this machine, start that many processes and wait for them.

    Args:
        config: the composed settings of conf/evaluate.yaml and the command line.

    Raises:
        ValueError: as for `evaluate`.
    """
    settings = _checked(config)
    if detect_launcher():
        with fail_together():
            evaluate(config)
        return
    from running.evaluation.evaluate_model import evaluation_places  # as above

    with exclusive_lock(evaluation_places(settings)[2], doing="evaluated"):
        if settings.devices > 1:
            run_on_ranks(settings.devices)
            return
        try:
            evaluate(config)
        except KeyboardInterrupt:
            say("stopped: scored examples are kept. Run the same command again to continue.", error=True)
            sys.exit(130)


def _checked(config: Mapping[str, Any]) -> EvaluateConfig:
    settings = parse(EvaluateConfig, config)
    assert settings.model is not None
    check_model_path(settings.model)
    return settings
