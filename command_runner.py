"""What all commands share: the command line is checked first, and an error is a single sentence.

A command is a script like train.py, with its help text and `@hydra.main`. Its work is a function in
`running/commands/`, which is imported after the command line has been checked.
"""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from inspect import unwrap
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gpt_lightning.console import escape_control_characters, guard_streams, output_error, say
from running.config.allowed_targets import allow_typed_targets, typed_targets
from running.config.command_help import command_help
from running.config.command_line_check import check_command_line, extra_hydra_settings, flags_and_settings
from running.config.compose import to_dict
from running.config.composed_run import run_composed
from running.config.init_from_architecture import init_from_settings
from running.config.own_imports import check_imports, import_parts, typed_imports
from running.config.quote_for_hydra import quote_text_settings
from running.interrupts import interrupt_message, interrupt_sentence
from running.sweeps.multirun import end_with_sweep
from running.sweeps.sweep_job import answer_in_process, open_multirun, run_job_process
from running.training import bus_error, rank_processes


def run_command_line(hydra_main: Callable[[], None], command: str, *, after_multirun: str | None = None) -> None:
    """Run a command. The command line is checked first, so that a typo gives a one-sentence error.

    Args:
        hydra_main: the script's `@hydra.main` function.
        command: name of the command.
        after_multirun: "module:function" that is called with the Multirun at its end, however it ends, and prints a
            summary.
    """
    end_with_sweep()
    guard_streams()
    with interrupt_message(), ExitStack() as held:
        arguments = sys.argv[1:] = quote_text_settings(sys.argv[1:])
        try:
            if flags_and_settings(arguments).help:
                say(command_help(command))
                return
            run, multirun = check_command_line(command, arguments)
            import_parts(typed_imports(flags_and_settings(arguments).overrides))
            further = init_from_settings(flags_and_settings(arguments).overrides)
            sys.argv[1:] = arguments = [*arguments, *further]
            sweep = None if multirun is None else held.enter_context(open_multirun(command, multirun))
        except ValueError as error:
            sys.exit(escape_control_characters(f"error: {error}"))
        if run is not None and not further:
            run_composed(unwrap(hydra_main), command, run)
            return
        if multirun is None or sweep is None:
            hydra_main()
            return
        sys.argv[1:] = [*arguments, *extra_hydra_settings(flags_and_settings(arguments).overrides, multirun)]
        if after_multirun:
            held.callback(lambda: _function(after_multirun)(sweep))
        hydra_main()
        sweep.end()


def run_command(
    command: str,
    config: DictConfig,
    *,
    in_multirun: str | None = None,
    prints_result: bool = False,
) -> Any:
    """Import a command and call it with its config as a plain dict. A job of a multirun is run in its own process.

    A ValueError or OSError is reported as one sentence; GPT_LIGHTNING_TRACEBACK=1 also shows the traceback.

    Args:
        command: "module:function" to call.
        config: the config that Hydra composed.
        in_multirun: "module:function" to call in this process for each job of a multirun; None: each job has its own
            process.
        prints_result: whether the output is the command's result, so that it fails if standard output cannot be
            written.
    """
    own = typed_targets(HydraConfig.get().overrides.task)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        with allow_typed_targets(own):
            return answer_in_process(_function(in_multirun), config) if in_multirun else run_job_process(config)
    bus_error.install_bus_error_message(lambda: [])
    try:
        with allow_typed_targets(own):
            settings = to_dict(config)
            check_imports(settings)
            _function(command)(settings)
            if prints_result and (lost := output_error()):
                raise OSError(f"the output could not be written completely: {lost.strerror}.")
    except KeyboardInterrupt:
        say(interrupt_sentence(), error=True)
        rank_processes.exit_rank(130)
    except Exception as error:
        if code := getattr(error, "exit_code", None):
            if isinstance(error, rank_processes.RankLostError):  # the run itself has reported its other ends
                say(f"error: {error}", error=True)  # in one write, because other ranks print the same
            rank_processes.exit_rank(code)
        is_answer = isinstance(error, (ValueError, OSError))
        if not is_answer or os.environ.get("GPT_LIGHTNING_TRACEBACK"):
            say(traceback.format_exc(), error=True)
        if not is_answer:
            rank_processes.exit_rank(1)
        rank_processes.exit_rank(f"error: {error}")
    return None


def _function(path: str) -> Callable[..., Any]:
    """Import "module:function". This can take seconds, so it is done after all settings are checked."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
