"""Generation against reading everything anew, against the probabilities it draws from, and text against its bytes."""

from pathlib import Path

import pytest
import torch

from gpt_lightning.generation import Sampling, generate, stream_generated_text, window_start
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import load_tokenizer
from tests.gpt_lightning.tiny_models import FAMILIES, VOCAB_SIZE, build

PROMPTS = [[1, 2, 3], [4], list(range(16)), [5, 6, 7], [9] * 11]
GREEDY = Sampling(temperature=0)


def spread(model: GPT) -> GPT:
    """The same model with larger weights, so that its likeliest ids differ from place to place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(8)
    return model


def without_cache(model: GPT, prompt: list[int], n: int) -> list[int]:
    text = list(prompt)
    for _ in range(n):
        window = text[window_start(len(text), model.config.max_seq_len) :]
        text.append(int(model.eval()(torch.tensor([window]))[0, -1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["manual", "sdpa"])
@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
def test_greedy_ids_are_those_without_a_cache(family: str, backend: str, apart: bool) -> None:
    """Over three windows, prompts of unequal lengths side by side, the window sliding for each at its own time."""
    documents = {"attend_across_documents": False, "eot_id": 9} if apart else {}
    model = spread(build(attention=backend, **FAMILIES[family] | documents))
    answers = generate(model, PROMPTS, 48, sampling=GREEDY)
    assert answers == [without_cache(model, prompt, 48) for prompt in PROMPTS]
    assert len({token_id for answer in answers for token_id in answer}) > 5  # it says something


def test_the_window_slides_by_half() -> None:
    assert [window_start(n, 8) for n in (1, 8, 9, 13, 14, 18, 19)] == [0, 0, 5, 5, 10, 10, 15]
    for n in range(1, 100):
        for max_seq_len in (1, 2, 7, 8):
            assert max(1, max_seq_len // 2) <= n - window_start(n, max_seq_len) <= max_seq_len or n < max_seq_len


def test_an_answer_depends_on_seed_and_number_and_on_nothing_beside_it() -> None:
    model = build()
    state = torch.random.get_rng_state()
    sampling = Sampling(top_k=20, seed=3)
    first = generate(model, PROMPTS, 40, sampling=sampling, vocab_size=50)
    assert first == generate(model, PROMPTS, 40, sampling=sampling, vocab_size=50)
    assert first != generate(model, PROMPTS, 40, sampling=Sampling(top_k=20, seed=4), vocab_size=50)
    assert first[:2] == generate(model, PROMPTS[:2], 40, sampling=sampling, vocab_size=50)
    assert first[0] != first[3]
    assert {len(ids) for ids in first} == {40}
    assert max(map(max, first)) < 50  # the padding of the vocabulary is never drawn
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training  # as it was before


def test_stop_ids_end_one_text_and_leave_the_others() -> None:
    model = spread(build())
    free = generate(model, PROMPTS, 30, sampling=GREEDY)
    stop = free[0][3]
    stopped = generate(model, PROMPTS, 30, sampling=GREEDY, stop_ids=[stop])
    assert stopped == [ids[: ids.index(stop)] if stop in ids else ids for ids in free]
    assert generate(model, PROMPTS, 0) == [[]] * len(PROMPTS)
    assert generate(model, [], 5) == []


def test_draws_follow_the_probabilities() -> None:
    """20,000 first ids against the softmax that temperature, top-k, top-p and penalty make of the model's logits."""
    model = spread(build())
    prompt, n = [1, 2, 3], 20_000
    logits = model.eval()(torch.tensor([prompt]))[0, -1].detach().double()
    for options in (
        {},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.6},
        {"top_k": 30, "top_p": 0.9},
        {"repetition_penalty": 1.5},
    ):
        sampling = Sampling(**options)
        expected = logits.clone()
        if sampling.repetition_penalty != 1:
            expected[prompt] = torch.where(expected[prompt] > 0, expected[prompt] / 1.5, expected[prompt] * 1.5)
        expected /= sampling.temperature
        order = expected.argsort(descending=True)
        if sampling.top_k:
            expected[order[sampling.top_k :]] = float("-inf")
        if sampling.top_p:
            before = expected.softmax(0)[order].cumsum(0) - expected.softmax(0)[order]
            expected[order[before >= sampling.top_p]] = float("-inf")
        expected = expected.softmax(0)
        drawn = (
            torch.tensor(generate(model, [prompt] * n, 1, sampling=sampling)).flatten().bincount(minlength=VOCAB_SIZE)
            / n
        )
        assert drawn[expected == 0].sum() == 0, options
        assert (drawn - expected).abs().sum() / 2 < 0.05, options  # total variation


def test_a_penalty_is_for_what_a_text_got_to_hold_too() -> None:
    """A penalty that nothing outweighs: the likeliest ids are taken in turn, none of them twice."""
    sampling = Sampling(temperature=0, repetition_penalty=1e9)
    for prompt, answer in zip(PROMPTS, generate(spread(build()), PROMPTS, 30, sampling=sampling), strict=True):
        assert len({*prompt, *answer}) == len({*prompt}) + 30


@pytest.mark.parametrize("name", ["gpt2", "bpe_512"])
def test_a_stream_is_the_decoded_answer_and_splits_no_character(name: str, tiny_data: Path) -> None:
    tokenizer = load_tokenizer(name if name == "gpt2" else tiny_data / name)
    text = "Grüße, 世界 👩‍👩‍👧 und ¡hola! ﷽"
    ids = tokenizer.encode(text)
    model = build(vocab_size=tokenizer.vocab_size, max_seq_len=128, d_model=64, n_layers=1)
    recite(model, [tokenizer.eot_id, *ids, tokenizer.eot_id])
    pieces = list(
        stream_generated_text(model, tokenizer, [tokenizer.eot_id], 200, sampling=GREEDY, stop_ids=[tokenizer.eot_id])
    )
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)
    cut = list(stream_generated_text(model, tokenizer, [tokenizer.eot_id], 9, sampling=GREEDY))
    assert "".join(cut) == tokenizer.decode(generate(model, [[tokenizer.eot_id]], 9, sampling=GREEDY)[0])


def recite(model: GPT, text: list[int]) -> None:
    """Make a model whose likeliest next id at position p is text[p + 1], whatever stands before."""
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.zero_()
            block.feed_forward.out.weight.zero_()
        codes = torch.randn(model.config.vocab_size, model.config.d_model, generator=torch.Generator().manual_seed(0))
        codes = torch.nn.functional.layer_norm(codes, codes.shape[1:])
        model.embedding.weight.copy_(codes)
        model.positions.weight[: len(text) - 1] = 10 * codes[text[1:]]


def test_two_streams_at_once_leave_the_model_as_it_was() -> None:
    tokenizer = load_tokenizer("gpt2")
    model = build(vocab_size=tokenizer.vocab_size, dropout=0.5)
    first, second = (stream_generated_text(model, tokenizer, [5, 6], 12, sampling=GREEDY) for _ in range(2))
    pieces = [(next(first, ""), next(second, "")) for _ in range(13)]
    assert "".join(a for a, _ in pieces) == "".join(b for _, b in pieces)
    assert model.training


def test_no_temperature_and_no_divergence_breaks_a_draw() -> None:
    model = spread(build())
    greedy = generate(model, [[1, 2]], 5, sampling=GREEDY)
    for temperature in (1e-40, 1e-46, 1e-320):  # below the range of fp32, and at the end of fp64's
        assert generate(model, [[1, 2]], 5, sampling=Sampling(temperature=temperature)) == greedy
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    for sampling in (GREEDY, Sampling(), Sampling(top_k=5), Sampling(top_p=0.5)):
        assert len(generate(model, [[1, 2]], 5, sampling=sampling, vocab_size=500)[0]) == 5


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "is empty: it must have at least one token"),
        ([1] * 17, "the prompt has 17 tokens: it must have at most 16"),
        ([97], "the prompt has the id 97: ids must be below 97"),
        ([-1, 5], "the prompt has the id -1"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(prompt: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(build(), [prompt], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature is -1: it must be 0 or more"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 2.5}, "top_k is 2.5: it must be a whole number"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
    ],
)
def test_sampling_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)  # type: ignore[arg-type]
