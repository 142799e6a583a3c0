"""How large a run's model is."""

from collections.abc import Mapping
from typing import Any

_RECORDED = ("parameters", "flops_per_token")


def model_size(section: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[int, int]:
    """(parameters, FLOPs of a token).

    Args:
        section: `model` of the run's config.yaml.
        environment: its environment.json. A run that an older version began has no sizes in it; they are then those of the model
            that the section describes.

    Raises:
        TypeError, ValueError, RuntimeError: the section describes no model.
    """
    recorded = environment.get("model")
    if isinstance(recorded, dict) and all(type(recorded.get(key)) is int and recorded[key] > 0 for key in _RECORDED):
        parameters, flops = (recorded[key] for key in _RECORDED)
        return parameters, flops
    # not at the top: it imports torch
    from gpt_lightning.model import GPTConfig
    from gpt_lightning.model.model_size import build_meta_model, flops_per_token

    model = build_meta_model(GPTConfig(**{"eot_id": 0, **section}))
    return model.n_parameters(), flops_per_token(model)
