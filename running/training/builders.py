"""Build the parts of a run from the config, with checks. train.py, plan.py and verify.py share them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from data_modules import Curriculum, SampleOrder
from data_modules.order.run_order import OrderSettings, order_of_run
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import learning_rate_schedule, optimizer_traits, parameter_groups, rehearse_optimizer_step
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.verified_checkpoint import read_optimizer_state
from running.config import allowed_targets
from running.config.optimization_configs import OptimizerConfig
from running.config.run_config import RunConfig
from running.training.resume import ResumePoint


def build_schedule(config: RunConfig) -> Callable[[int], float]:
    """The learning rate schedule: step -> fraction of the peak learning rate.

    Args:
        config: config of the run.
    """
    return learning_rate_schedule(**asdict(config.schedule), steps=config.max_steps)


def build_model_config(config: RunConfig, tokenizer: Tokenizer) -> GPTConfig:
    """Sizes and choices of the model.

    Args:
        config: config of the run.
        tokenizer: gives the end-of-text id.

    Raises:
        ValueError: the model's settings contradict each other, or the tokenizer has more tokens than the model.
    """
    model_config = replace(config.model, eot_id=tokenizer.eot_id)
    if model_config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size is {model_config.vocab_size}, smaller than the {tokenizer.vocab_size} tokens of "
            f"tokenizer {tokenizer.name}: set model.vocab_size={tokenizer.vocab_size} or larger."
        )
    return model_config


def build_sample_order(
    config: RunConfig, curriculum: Curriculum, sequences: Mapping[str, int], beginning: ResumePoint
) -> SampleOrder:
    """The order of the run's sequences. A resumed or branched run keeps the order of the steps that its checkpoint
    records.

    Args:
        config: config of the run.
        curriculum: the mix of the run.
        sequences: number of training sequences of each source.
        beginning: where this start of the run begins.

    Raises:
        ValueError: the curriculum draws more from a source than allowed, or changes the mix of completed steps.
    """
    settings = OrderSettings(
        steps=config.max_steps,
        tokens_per_step=config.tokens_per_step,
        global_batch=config.global_batch,
        seed=config.seed,
        sequences=sequences,
    )
    return order_of_run(curriculum, settings, beginning.past_order(first_step=config.branch.step or 0))


def build_optimizer(optimizer: OptimizerConfig, precision: str) -> Any:
    """The optimizer as a function of the parameter groups.

    Args:
        optimizer: the class and its arguments.
        precision: Lightning's name for the precision.

    Raises:
        ValueError: the optimizer does not accept a setting.
    """
    options = optimizer.node
    make_optimizer = allowed_targets.resolve_optimizer(options)
    if optimizer_traits(make_optimizer).fused and options.get("fused") and precision == "16-mixed":
        # a fused step unscales gradients itself, after our clipping, which would then clip scaled gradients
        make_optimizer = allowed_targets.resolve_optimizer({**options, "fused": None})
    try:
        make_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))]}])
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer: {str(error).rstrip('.')}.") from error
    return make_optimizer


def check_same_optimizer(
    config: RunConfig,
    beginning: ResumePoint,
    make_optimizer: Callable[..., Any],
    groups: list[dict[str, Any]],
    device: torch.device,
) -> None:
    """Try one step with the optimizer state of the checkpoint: some options need state that an optimizer without the
    option does not create.

    Args:
        config: config of the run.
        beginning: where this start of the run begins.
        make_optimizer: parameter groups -> optimizer.
        groups: the model's parameter groups.
        device: device of the parameters.

    Raises:
        ValueError: the optimizer cannot continue from the checkpoint, or cannot take a step.
    """
    saved = None if beginning.checkpoint is None else read_optimizer_state(beginning.checkpoint)
    try:
        rehearse_optimizer_step(make_optimizer, groups, saved, device)
    except ValueError as error:
        changed = {key: then for key, (then, _) in beginning.changes.items() if key.startswith("optimizer.")}
        if not changed:
            raise ValueError(f"optimizer: {config.optimizer.target} cannot take a step: {error}.") from error
        now, was = (
            ", ".join(f"{key}={value}" for key, value in pairs.items())
            for pairs in (
                {key: beginning.changes[key][1] for key in changed},
                changed,
            )
        )
        raise ValueError(
            f"{now} cannot continue from {beginning.checkpoint}, which was trained with {was}: {error}. Set it back, "
            "or start a new run with name=…."
        ) from error


def build_parameter_groups(config: RunConfig) -> Callable[[GPT], list[dict[str, Any]]]:
    """The parameter groups that the config's optimizer needs, as a function of the model.

    Args:
        config: config of the run.

    Raises:
        ValueError: `base_width` is not a valid width.
    """
    traits = optimizer_traits(allowed_targets.resolve_optimizer(config.optimizer.node))
    return partial(parameter_groups, muon=traits.muon, base_width=config.base_width)
