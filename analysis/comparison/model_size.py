"""The size of a run's model."""

from collections.abc import Mapping
from typing import Any

_RECORDED = ("parameters", "flops_per_token")


def model_size(section: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[int, int]:
    """(parameters, FLOPs per token) of a run's model.

    Args:
        section: `model` in the run's config.yaml.
        environment: the run's environment.json. Older versions did not record sizes; the sizes are then computed from
            `section`.

    Raises:
        TypeError, ValueError, RuntimeError: `section` does not describe a model.
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
