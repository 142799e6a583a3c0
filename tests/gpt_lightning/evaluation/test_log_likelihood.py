"""The engine: whatever is read together, each request's score is the one that it has alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_lightning.evaluation import Request, RequestTooLongError, group_request_indices, score_batch
from gpt_lightning.evaluation.log_likelihood import NonFiniteScoreError, truncate_to_context
from gpt_lightning.model import GPT
from gpt_lightning.model.kv_cache import KVCache

T = 48  # the model's max_seq_len


@st.composite
def requests(draw: st.DrawFn) -> Request:
    ids = draw(st.lists(st.integers(0, 511), min_size=2, max_size=T + 1))
    first = draw(st.integers(1, len(ids) - 1))
    bears = draw(st.none() | st.lists(st.booleans(), min_size=len(ids) - first, max_size=len(ids) - first))
    return Request(ids, first, None if bears is None else np.array(bears))


@torch.inference_mode()
def alone(model: GPT, request: Request) -> tuple[float, bool]:
    """As a person would: all logits, one request at a time, in fp64."""
    model.eval()
    ids = torch.tensor([list(request.ids)])
    logits = model(ids[:, :-1])[0].double().log_softmax(dim=-1)
    nats, greedy = 0.0, True
    for place in range(request.first, ids.shape[1]):
        if request.mask is None or request.mask[place - request.first]:
            nats -= float(logits[place - 1, ids[0, place]])
            greedy &= int(logits[place - 1].argmax()) == int(ids[0, place])
    return nats, greedy


@st.composite
def questions(draw: st.DrawFn) -> list[Request]:
    """Several answers to each of some contexts, of which some are as long as others."""
    asked = []
    for n in draw(st.lists(st.sampled_from([1, 5, 20, 30]), min_size=1, max_size=4)):
        context = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))  # with ends of texts
        answers = draw(st.lists(st.lists(st.integers(0, 511), min_size=1, max_size=T + 1 - n), min_size=1, max_size=5))
        asked += [Request([*context, *answer], n) for answer in answers]
    return draw(st.permutations(asked))


@settings(max_examples=50)
@given(
    st.lists(requests(), min_size=1, max_size=12) | questions(),
    st.sampled_from([1, 60, 200, 10_000]),
)
def test_a_score_does_not_depend_on_its_neighbours(model: GPT, asked: list[Request], batch_tokens: int) -> None:
    scores = {}
    for group in group_request_indices(asked, batch_tokens=batch_tokens):
        model.train()  # as in the middle of a training
        scores |= zip(group, score_batch(model, [asked[n] for n in group]), strict=True)
        assert model.training
    assert sorted(scores) == list(range(len(asked)))
    for n, request in enumerate(asked):
        nats, greedy = alone(model, request)
        assert scores[n].nats == pytest.approx(nats, rel=1e-5, abs=1e-5)
        assert scores[n].is_greedy == greedy


@given(questions(), st.integers(1, 300))
def test_answers_stay_with_their_context_where_that_saves_reading(asked: list[Request], batch_tokens: int) -> None:
    together = {n: group for group in group_request_indices(asked, batch_tokens=batch_tokens) for n in group}
    assert sorted(together) == list(range(len(asked)))
    for n, request in enumerate(asked):
        same = [
            m for m, other in enumerate(asked) if list(other.ids[: other.first]) == list(request.ids[: request.first])
        ]
        longest = max(len(asked[m].ids) for m in same) - 1
        read = request.first - 1 + len(same) * (longest - request.first + 1)
        saved = (request.first - 1) * (len(same) - 1)
        held = len(same) * longest
        if saved * 4 >= sum(len(asked[m].ids) - 1 for m in same) and read <= batch_tokens and held <= 4 * batch_tokens:
            assert all(together[m] is together[n] for m in same)
            contexts = {tuple(asked[m].ids[: asked[m].first]) for m in together[n]}
            assert {len(context) for context in contexts} == {request.first}
            own = len(together[n]) * (max(len(asked[m].ids) for m in together[n]) - request.first)
            assert len(contexts) * (request.first - 1) + own <= batch_tokens


def test_a_context_is_read_once_and_the_cache_stays_small(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four answers, and of so many that they take several batches."""
    read, held = [], []
    real = GPT.hidden

    def hidden(self: GPT, token_ids: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        read.append(token_ids.numel())
        held.append(0 if cache is None else cache.keys.shape[1] * cache.keys.shape[2])
        return real(self, token_ids, cache)

    monkeypatch.setattr(GPT, "hidden", hidden)
    asked = [Request([*range(40), n, n], 40) for n in range(4)]
    ((group),) = group_request_indices(asked, batch_tokens=100)
    score_batch(model, [asked[n] for n in group])
    assert sum(read) == 39 + 4 * 2
    read.clear()
    many = [Request([*range(40), n], 40) for n in range(400)]
    for group in group_request_indices(many, batch_tokens=100):
        score_batch(model, [many[n] for n in group])
    assert max(held) <= 400
    assert sum(read) <= 400 + 39 * 41


def test_the_largest_batch_comes_first() -> None:
    asked = [Request([*range(30), 7], 30 - n % 3) for n in range(20)] + [Request([1] * 49, 1)]
    sizes = [sum(len(asked[n].ids) - 1 for n in group) for group in group_request_indices(asked, batch_tokens=60)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("first", [0, 3])
def test_a_request_in_which_nothing_can_be_scored_is_none(first: int) -> None:
    with pytest.raises(ValueError, match=f"first is {first}: it must be from 1 to 2"):
        Request([1, 2, 3], first)


@given(st.lists(st.integers(2, 60), max_size=40), st.integers(1, 300))
def test_batches_hold_every_request_once_and_stay_small(lengths: list[int], batch_tokens: int) -> None:
    asked = [Request([0] * length, 1) for length in lengths]
    groups = group_request_indices(asked, batch_tokens=batch_tokens)
    assert sorted(n for group in groups for n in group) == list(range(len(asked)))
    for group in groups:
        assert len(group) * max(lengths[n] - 1 for n in group) <= max(batch_tokens, max(lengths[n] - 1 for n in group))


@given(st.integers(2, 120), st.data())
def test_what_does_not_fit_loses_its_beginning_alone(length: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, length - 1))
    request = Request(list(range(length)), first)
    if length - first > T:
        with pytest.raises(RequestTooLongError, match=f"{length - first} tokens to score: it must have at most {T}"):
            truncate_to_context(request, T)
        return
    seen = truncate_to_context(request, T)
    assert len(seen.ids) == min(length, T + 1)
    assert seen.scored.tolist() == request.scored.tolist()
    assert list(seen.ids) == list(request.ids)[-len(seen.ids) :]


def test_a_request_that_is_too_long_is_refused(model: GPT) -> None:
    with pytest.raises(RequestTooLongError, match="a request has 50 tokens: it must have at most 49"):
        score_batch(model, [Request([1] * 50, 1)])


def test_a_ruined_model_is_not_scored(model: GPT) -> None:
    ruined = copy.deepcopy(model)
    with torch.no_grad():
        ruined.head.weight[3, 3] = float("nan")
    with pytest.raises(NonFiniteScoreError, match="its weights are damaged"):
        score_batch(ruined, [Request([1, 2, 3], 1)])
