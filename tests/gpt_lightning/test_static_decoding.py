"""Decoding by a step of fixed shapes against the ordinary one; a stand-in for a CUDA graph repeats the step on the CPU."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt_lightning.generation import Sampling, cuda_graph_step, generate, static_decoding
from gpt_lightning.generation.generate import generate_batch
from gpt_lightning.generation.rolling_kv_cache import RollingKVCache
from gpt_lightning.generation.sampling import TokenSampler
from gpt_lightning.generation.static_decoding import StaticDecoding
from gpt_lightning.model import GPT
from tests.gpt_lightning.test_generation import GREEDY, PROMPTS, spread
from tests.gpt_lightning.tiny_models import FAMILIES, VOCAB_SIZE, build

EOT = 9
SAMPLINGS = {
    "greedy": GREEDY,
    "all": Sampling(temperature=0.7, seed=3),
    "top_k": Sampling(temperature=0.8, top_k=20),
    "top_p": Sampling(top_p=0.9, seed=1),
    "penalty": Sampling(top_k=30, top_p=0.9, repetition_penalty=1.3),
    "greedy_penalty": Sampling(temperature=0, repetition_penalty=1.5),
}


class GraphStandIn:
    """Repeats on the CPU what a CUDA graph would: the recorded operations on the same tensors, and no line of Python.

    The first run is an ordinary one. The second is recorded and undone, as a capture computes nothing, then repeated.
    """

    captures = 0

    def __init__(self, device: torch.device) -> None:
        self.forget()

    def forget(self) -> None:
        self._record: _Record | None = None
        self._has_run = False

    def __call__(self, step: Callable[[], None]) -> None:
        if not self._has_run:
            step()
            self._has_run = True
            return
        if self._record is None:
            self._record = _Record()
            with self._record:
                step()
            self._record.undo()
            GraphStandIn.captures += 1
        self._record.repeat()


class _Record(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), "it waits"
        for argument, given in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.before.append((given, given.clone()))
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def undo(self) -> None:
        for tensor, before in reversed(self.before):
            tensor.copy_(before)

    def repeat(self) -> None:
        for func, args, kwargs, result in self.calls:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoding, "CudaGraphStep", GraphStandIn)
    monkeypatch.setattr(static_decoding, "BUCKET", 5)
    monkeypatch.setattr(GraphStandIn, "captures", 0)


def static(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    vocab_size: int = VOCAB_SIZE,
) -> list[list[int]]:
    """What `generate` gives where the device is a GPU."""
    reader = RollingKVCache(model, prompts, n, vocab_size)
    decoding = StaticDecoding(reader, TokenSampler(sampling, prompts, vocab_size, reader.device), n)
    answers: list[list[int]] = [[] for _ in prompts]
    for row, token_id in generate_batch(model, decoding, n, stop_ids):
        answers[row].append(token_id)
    return answers


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
def test_its_ids_are_those_of_the_ordinary_decoding(family: str, apart: bool, sampling: Sampling) -> None:
    """Over three windows, prompts of unequal lengths side by side; then a single one, whose first window has room left."""
    documents = {"attend_across_documents": False, "eot_id": EOT} if apart else {}
    model = spread(build(**FAMILIES[family] | documents)).double()
    for prompts, n in ((PROMPTS, 40), ([[1, EOT, 3]], 9)):
        assert static(model, prompts, n, sampling=sampling) == generate(model, prompts, n, sampling=sampling)
    assert GraphStandIn.captures > 5


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
@pytest.mark.parametrize("max_seq_len", [1, 2, 16])
def test_any_backend_and_the_shortest_contexts(backend: str, max_seq_len: int) -> None:
    model = spread(build(attention=backend, max_seq_len=max_seq_len)).double()
    prompts = [prompt[:max_seq_len] for prompt in PROMPTS]
    sampling = Sampling(top_k=20)
    assert static(model, prompts, 20, sampling=sampling) == generate(model, prompts, 20, sampling=sampling)
    assert static(model, prompts, 0, sampling=sampling) == [[]] * len(prompts)
    assert static(model, prompts, 1, sampling=sampling) == generate(model, prompts, 1, sampling=sampling)


@pytest.mark.parametrize("sampling", [SAMPLINGS["top_k"], SAMPLINGS["penalty"]], ids=["top_k", "penalty"])
def test_texts_end_each_at_its_own_time(sampling: Sampling) -> None:
    """Rows leave the batch by halves, and one that has ended neither fills its window nor draws for another."""
    model = spread(build(**FAMILIES["modern"], attend_across_documents=False, eot_id=EOT)).double()
    prompts = [[n, n + 1, EOT, n][: 1 + n % 4] for n in range(12)]
    stop_ids = range(0, VOCAB_SIZE, 15)
    arguments = {"sampling": sampling, "stop_ids": stop_ids, "vocab_size": 90}
    answers = static(model, prompts, 60, **arguments)
    assert answers == generate(model, prompts, 60, **arguments)
    lengths = [len(answer) for answer in answers]
    assert min(lengths) < 16 < max(lengths)
    assert len(set(lengths)) > 4


def test_a_longer_text_costs_a_capture_for_each_bucket() -> None:
    """15 tokens read 3 to 16 keys: up to 5, 10, 15, and 16, which is read once and therefore not captured."""
    static(build(), [[1, 2]], 15, sampling=GREEDY)
    assert GraphStandIn.captures == 3


def test_texts_that_end_cost_a_capture_for_each_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoding, "BUCKET", 64)
    model = spread(build(max_seq_len=64))
    answers = static(model, [[n] for n in range(12)], 50, sampling=Sampling(), stop_ids=range(0, VOCAB_SIZE, 15))
    assert len(set(map(len, answers))) > 6
    assert 2 <= GraphStandIn.captures <= 5  # of batches of 12, at most 6, 3, 1


def test_a_graph_sees_weights_that_are_updated_in_place() -> None:
    """Whatever trains the model while a text is streamed: the next token is that of the weights it finds."""
    ids = []
    for update in (False, True):
        model = spread(build())
        reader = RollingKVCache(model, [[1, 2, 3]], 12, VOCAB_SIZE)
        decoding = StaticDecoding(reader, TokenSampler(GREEDY, [[1, 2, 3]], VOCAB_SIZE, reader.device), 12)
        tokens = generate_batch(model, decoding, 12, [])
        first = [next(tokens) for _ in range(7)]
        if update:
            with torch.no_grad():
                model.norm.weight.neg_()
        ids.append(first + list(tokens))
    assert ids[0][:8] == ids[1][:8]  # one step is under way when the seventh id is read
    assert ids[0][8:] != ids[1][8:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_that_cannot_be_captured_is_launched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that waits for the device: it runs as often as it is asked to, and the log says why."""
    monkeypatch.setattr(cuda_graph_step, "_failed", [])
    x, step = torch.zeros(1, device="cuda"), cuda_graph_step.CudaGraphStep(torch.device("cuda:0"))
    for n in range(4):
        step(lambda: x.add_(1 + 0 * x.item()))
        assert x.item() == n + 1
    assert len(caplog.records) == 1
    assert "captur" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("apart", [False, True], ids=["across", "apart"])
def test_a_cuda_graph_repeats_the_step(
    family: str, apart: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The ids of the CPU, and those of the same step launched kernel by kernel; no capture fails."""
    documents = {"attend_across_documents": False, "eot_id": EOT} if apart else {}
    model = spread(build(**FAMILIES[family] | documents)).double()
    monkeypatch.setattr(static_decoding, "CudaGraphStep", cuda_graph_step.CudaGraphStep)
    for sampling in SAMPLINGS.values():
        expected = generate(model.cpu(), PROMPTS, 40, sampling=sampling)
        with caplog.at_level(logging.WARNING):
            assert generate(model.cuda(), PROMPTS, 40, sampling=sampling) == expected
    assert not caplog.records
