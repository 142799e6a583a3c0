"""What the verbs share: the command line and errors in one sentence.

A verb is a file like train.py: a plain function of a dict, and a shell of @hydra.main around it. Hydra and OmegaConf end
here; what goes on to the packages are dicts, dataclasses and objects. What verbs are made of lies in
`running/`.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from running import ranks
from running.allowed_targets import typed, typed_targets
from running.command_line import check_command_line, flags_and_settings, said_besides
from running.composing import (
    CONF,
    compose_config,
    flatten,
    group_choices,
    hydra_quoted,
    path_of,
    read_choice,
    read_config,
    to_dict,
    write_config,
)
from running.hydra_job import multirun_of, run_as_process, run_here
from running.multirun import Multirun

__all__ = [
    "CONF",
    "check_command_line",
    "compose_config",
    "flatten",
    "group_choices",
    "path_of",
    "quote_texts",
    "read_choice",
    "read_config",
    "run",
    "start",
    "to_dict",
    "write_config",
]
TEXTS = {"prompt", "pattern"}  # settings that hold ordinary text
PATHS = {
    "run",
    "checkpoint",
    "log_dir",
    "out_dir",
    "runs",
    "mix_law",
    "held_out",
    "input",
    "output",
    "init_from",
    "branch.run",
    "curriculum.ado.record",
    "resume",
    "data_dir",
    "runs_dir",
}  # a sweep's runs have = and , in their names


_SIGNS = re.compile(r"(?!.*\$\{)[^\w./,*?:+@%-]")  # with which Hydra begins something else; ${…} is meant for it


def start(
    hydra_main: Callable[[], None], verb: str, *, after_multirun: Callable[[Multirun], None] | None = None
) -> None:
    """Run a verb: check the command line first, so that a typo costs one sentence and not a page.

    Args:
        hydra_main: what Hydra has made of the verb.
        verb: its name.
        after_multirun: says in short what came of the jobs, however the multirun has ended.
    """
    arguments = sys.argv[1:] = quote_texts(sys.argv[1:])
    with ExitStack() as held:
        try:
            config = check_command_line(verb, arguments)
            sweep = None if config is None else held.enter_context(multirun_of(verb, config))
        except ValueError as error:
            sys.exit(f"error: {error}")
        if config is None or sweep is None:
            hydra_main()
            return
        sys.argv[1:] = [*arguments, *said_besides(flags_and_settings(arguments).overrides, config)]
        if after_multirun:
            held.callback(after_multirun, sweep)
        hydra_main()
        sweep.end()


def run(
    verb: Callable[[dict[str, Any]], Any],
    config: DictConfig,
    *,
    answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Any:
    """Call a verb with its config as a plain dict; as a job of a multirun, in a process of its own.

    A ValueError or OSError is an answer to the user and becomes one sentence; GPT_LIGHTNING_TRACEBACK=1 shows the rest.

    Args:
        verb: what to call.
        config: what Hydra has composed.
        answer: what is asked instead, and needs no process, if this is a job of a multirun; None: it needs one.
    """
    own = typed_targets(HydraConfig.get().overrides.task)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        with typed(own):
            return run_here(answer, config) if answer else run_as_process(config)
    try:
        with typed(own):
            verb(to_dict(config))
    except KeyboardInterrupt:
        print("error: stopped by SIGINT before there was anything to save.", file=sys.stderr)
        ranks.leave(130)
    except Exception as error:
        if code := getattr(error, "exit_code", None):
            if isinstance(error, ranks.RankLost):  # of the other ends the run itself has said all
                sys.stderr.write(f"error: {error}\n")  # in one piece: other ranks say the same
            ranks.leave(code)
        if not isinstance(error, (ValueError, OSError)):
            raise
        if os.environ.get("GPT_LIGHTNING_TRACEBACK"):
            traceback.print_exc()
        ranks.leave(f"error: {error}")
    return None


def quote_texts(arguments: list[str]) -> list[str]:
    """The same arguments, with ordinary text as it is typed made fit for Hydra, which reads commas, brackets and quotes."""
    quoted = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        is_text = key in TEXTS or (key.rpartition(".")[2] == "path" and text[:1] not in ("", '"', "'"))
        if key in ("runs", "mix_law", "held_out") and "," in text and not set(text) & set("=[\"'"):
            argument = f"{key}=[{text}]"
        is_path = key in PATHS and text[:1] not in ("", '"', "'", "[") and ("=" in text or _SIGNS.search(text))
        if equals and (is_text or is_path):
            argument = f"{key}={hydra_quoted(text)}"
        quoted.append(argument)
    return quoted
