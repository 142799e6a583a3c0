"""Windows over a text: every token once, with as much before it as the stride leaves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_lightning.evaluation import score_batch
from gpt_lightning.evaluation.sliding_window_perplexity import sliding_windows, summarize_perplexity, text_requests
from gpt_lightning.model import GPT


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_every_token_is_scored_once(n_tokens: int, max_seq_len: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, max_seq_len))
    scored: list[int] = []
    for start, first, stop in sliding_windows(n_tokens, max_seq_len=max_seq_len, stride=stride):
        assert 0 < stop - start <= max_seq_len
        assert start <= first
        assert start == 0 or first - start == max_seq_len - stride  # what it is given, where there is so much
        scored += range(first, stop)
    assert scored == list(range(n_tokens))


@given(st.lists(st.integers(0, 500), min_size=2, max_size=200), st.integers(1, 48))
def test_requests_hold_the_ids_of_their_windows(ids: list[int], stride: int) -> None:
    requests = text_requests(np.array(ids), max_seq_len=48, stride=stride)
    assert np.concatenate([request.scored for request in requests]).tolist() == ids[1:]
    assert all(len(request.ids) <= 49 for request in requests)


def test_figures_are_those_of_all_tokens_together(model: GPT) -> None:
    ids = np.random.default_rng(3).integers(0, 512, size=500)
    bytes_per_id = np.random.default_rng(4).integers(0, 6, size=512)
    requests = text_requests(ids, max_seq_len=48, stride=20)
    scores = score_batch(model, requests)
    figures = summarize_perplexity(requests, scores, bytes_per_id)
    nats = sum(s.nats for s in scores)
    assert figures["loss"].value == pytest.approx(nats / 499)
    assert figures["perplexity"].value == pytest.approx(math.exp(nats / 499))
    assert figures["bits_per_byte"].value == pytest.approx(nats / math.log(2) / bytes_per_id[ids[1:]].sum())
    assert {figure.n for figure in figures.values()} == {len(requests)}


@pytest.mark.parametrize("stride", [0, 49])
def test_a_stride_that_leaves_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride is {stride}: it must be from 1 to 48"):
        text_requests(np.zeros(100, dtype=int), max_seq_len=48, stride=stride)
