"""convert.py: read a model in any supported format and write it as a folder in another format."""

from collections.abc import Mapping
from typing import Any

from gpt_lightning.model_path_check import check_model_path
from running.config.command_configs import ConvertConfig
from running.config.settings_parser import parse


def convert(config: Mapping[str, Any]) -> None:
    """Write the model at `input` to the new folder `output`, with the model's tokenizer if it is known.

    Args:
        config: the composed settings of conf/convert.yaml and the command line.

    Raises:
        ValueError: a setting is wrong, the input is not a model, the format cannot express the model, or the output
            exists. In these cases nothing is written.
    """
    settings = parse(ConvertConfig, config)
    check_model_path(settings.input)
    from running.evaluation.convert_model import convert_model  # torch takes seconds to import

    convert_model(settings)
