"""generate.py: continue a prompt, or run an interactive session."""

import sys
from collections.abc import Mapping
from typing import Any

from gpt_lightning.console import say
from gpt_lightning.model_path_check import check_model_path
from running.config.command_configs import GenerateConfig
from running.config.settings_parser import parse


def generate(config: Mapping[str, Any]) -> str | None:
    """Continue one prompt. Without a prompt, run an interactive session until the input ends.

    Args:
        config: the composed settings of conf/generate.yaml and the command line.

    Returns:
        The generated text; None after an interactive session.

    Raises:
        ValueError: a setting is wrong, the model cannot be read, its vocabulary does not match the tokenizer, or the
            prompt is longer than the model's context.
    """
    settings = parse(GenerateConfig, config)
    check_model_path(settings.run)
    from running.evaluation.chat_repl import ReplSession  # torch takes seconds to import
    from running.evaluation.model_text_generator import ModelTextGenerator

    session = ReplSession(ModelTextGenerator(settings), chat=settings.mode == "chat")
    if settings.prompt is None:
        session.hold(
            f"{settings.run}: {settings.mode}. An empty line or Ctrl-D ends the session; Ctrl-C stops an answer."
        )
        return None
    try:
        return session.write(str(settings.prompt))
    except KeyboardInterrupt:
        say()
        sys.exit(130)
