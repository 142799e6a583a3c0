"""Generate token ids or text after a prompt."""

import codecs
from collections.abc import Iterable, Iterator, Sequence

from gpt_lightning.generation.eager_decoding import EagerDecoding
from gpt_lightning.generation.rolling_kv_cache import RollingKVCache
from gpt_lightning.generation.sampling import Sampling, TokenSampler
from gpt_lightning.generation.static_decoding import StaticDecoding
from gpt_lightning.model import GPT
from gpt_lightning.model.eval_mode import eval_mode
from gpt_lightning.tokenizer import Tokenizer


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
    vocab_size: int | None = None,
) -> list[list[int]]:
    """Generate the ids that follow each prompt.

    The global random state does not change. The same call gives the same ids on the same device.

    Args:
        model: The model; generation uses eval mode, whatever the model's mode.
        prompts: Token ids of each prompt, 1 to max_seq_len; the lengths may differ.
        max_new_tokens: Maximum number of new tokens per prompt.
        sampling: How to sample; None: temperature 1 over all ids.
        stop_ids: A text ends before the first of these ids.
        vocab_size: Ids from vocab_size on are padding and never drawn; None: all ids of the model are drawn.

    Returns:
        The new ids of each prompt, without the prompt and the stop id.

    Raises:
        ValueError: A prompt is empty, longer than the model's context, or holds an id that the model does not have.
    """
    _refuse_prompts(model, prompts, max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for row, token_id in _generated(model, prompts, max_new_tokens, sampling or Sampling(), stop_ids, vocab_size):
        answers[row].append(token_id)
    return answers


def stream_generated_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
) -> Iterator[str]:
    """Generate the text that follows a prompt, yielding it piece by piece.

    The pieces together equal the decoded result of `generate`. A character of several bytes is yielded as a whole, with
    the token that completes it. Arguments and errors are those of `generate`; errors are raised by the call itself.
    """
    _refuse_prompts(model, [prompt], max_new_tokens)  # at the call, not at the first piece
    tokens = _generated(model, [prompt], max_new_tokens, sampling or Sampling(), stop_ids, tokenizer.vocab_size)
    return _pieces(tokenizer, (token_id for _, token_id in tokens))


def _pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token_id in ids:
        if piece := decoder.decode(tokenizer.decode_bytes([token_id])):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def _generated(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Sequence[int],
    vocab_size: int | None,
) -> Iterator[tuple[int, int]]:
    """Yield (prompt's index, its next id) as they are generated."""
    if not prompts:
        return
    vocab_size = model.config.vocab_size if vocab_size is None else min(vocab_size, model.config.vocab_size)
    reader = RollingKVCache(model, prompts, max_new_tokens, vocab_size)
    drawing = TokenSampler(sampling, prompts, vocab_size, reader.device)
    decoding: EagerDecoding | StaticDecoding = EagerDecoding(reader, drawing)
    if reader.device.type == "cuda":
        decoding = StaticDecoding(reader, drawing, max_new_tokens)
    yield from generate_batch(model, decoding, max_new_tokens, stop_ids)


def generate_batch(
    model: GPT, decoding: EagerDecoding | StaticDecoding, max_new_tokens: int, stop_ids: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Yield (text's index, its next id) until each text reaches a stop id or max_new_tokens."""
    for _ in range(max_new_tokens):
        with eval_mode(model):  # not around the yield
            chosen = decoding.next_ids()
        ended = {row for row, token_id in chosen.items() if token_id in stop_ids}
        for row, token_id in chosen.items():
            if row not in ended:
                yield row, token_id
        if len(ended) == len(chosen):
            return
        if ended:
            decoding.drop(ended)


def _refuse_prompts(model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it must be 0 or more.")
    for number, prompt in enumerate(prompts):
        name = "the prompt" if len(prompts) == 1 else f"prompt {number}"
        if not prompt:
            raise ValueError(f"{name} is empty: it must have at least one token. Start with the end-of-text id.")
        if len(prompt) > model.config.max_seq_len:
            raise ValueError(
                f"{name} has {len(prompt)} tokens: it must have at most {model.config.max_seq_len}, the model's "
                "max_seq_len. Shorten it."
            )
        if strange := [token_id for token_id in prompt if not 0 <= token_id < model.config.vocab_size]:
            raise ValueError(
                f"{name} has the id {strange[0]}: ids must be below {model.config.vocab_size}, the model's "
                "vocab_size. Use the model's tokenizer."
            )
