"""Text from a model: sampling token after token."""

from collections.abc import Sequence

import torch

from gpt_lightning.model import GPT


@torch.no_grad()
def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    stop_ids: Sequence[int] = (),
    vocab_size: int | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """The ids that follow each prompt, without the prompt, ended before the first stop id.

    Each prompt has random numbers of its own, so its answer does not depend on the others beside it; the global generator
    is left alone. A text longer than the model's max_seq_len is continued from its last max_seq_len tokens.

    Args:
        prompts: ids, at least one per prompt.
        temperature: 0 takes the likeliest id each time.
        top_k: only the k likeliest ids are drawn from; None: all.
        vocab_size: ids from here on are the vocabulary's padding and never drawn; None: the model has none.
        seed: the same seed gives the same ids on the same device.

    Raises:
        ValueError: a prompt is empty.
    """
    was_training = model.training
    model.eval()
    try:
        return [
            _continue(model, list(prompt), max_new_tokens, temperature, top_k, set(stop_ids), vocab_size, seed + n)
            for n, prompt in enumerate(prompts)
        ]
    finally:
        model.train(was_training)


def _continue(
    model: GPT,
    ids: list[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    stop_ids: set[int],
    vocab_size: int | None,
    seed: int,
) -> list[int]:
    if not ids:
        raise ValueError("a prompt needs at least one token: begin with the end-of-text id.")
    device = model.head.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    new: list[int] = []
    while len(new) < max_new_tokens:
        window = torch.tensor([(ids + new)[-model.config.max_seq_len :]], device=device)
        logits = model.head(model.hidden(window)[:, -1]).float()[0, :vocab_size]
        if temperature == 0:
            chosen = int(logits.argmax())
        else:
            if top_k is not None and top_k < len(logits):
                logits[logits < logits.topk(top_k).values[-1]] = float("-inf")
            chosen = int(torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator))
        if chosen in stop_ids:
            break
        new.append(chosen)
    return new
