"""Curriculum policies: their arguments, the meaning of their results, and refused results and settings."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from data_modules import Curriculum, ResolvedCurriculum, SampleOrder
from data_modules.order.curriculum_policy_registry import CURRICULUM_POLICIES

FRAMES = {"start": {"at": 0, "weights": {"a": 3, "b": 1}}, "end": {"at": 0.5, "weights": {"both": 1}}}
MIXES = {"both": {"a": 1, "b": 1}}
Policy = Callable[..., Any]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ResolvedCurriculum]:
    """`resolve(policy, setting=…)` returns a resolved curriculum of eight steps with that policy."""

    def of(policy: Policy, **settings: Any) -> ResolvedCurriculum:
        monkeypatch.setitem(CURRICULUM_POLICIES, "mine", policy)
        curriculum = Curriculum(keyframes=FRAMES, mixes=MIXES, policy={"name": "mine", **settings})
        return curriculum.resolve(steps=8, tokens_per_step=1)

    return of


def test_it_is_given_the_progress_the_keyframes_weights_and_its_settings(
    resolve: Callable[..., ResolvedCurriculum],
) -> None:
    calls = []

    def policy(progress: float, weights: dict[str, float], **settings: float) -> dict[str, float]:
        calls.append((progress, weights, settings))
        return weights

    resolved = resolve(policy, x=2)
    plain = Curriculum(keyframes=FRAMES, mixes=MIXES).resolve(steps=8, tokens_per_step=1)
    assert calls == [(step / 8, plain.weights(step), {"x": 2}) for step in range(8)]
    assert resolved.weights_at(np.arange(8)) == pytest.approx(plain.weights_at(np.arange(8)), abs=1e-7)
    assert resolved.place(3) == "policy mine"


def test_its_weights_are_relative_and_name_sources_or_mixes(resolve: Callable[..., ResolvedCurriculum]) -> None:
    assert resolve(lambda progress, weights: {"b": 5}).weights(0) == {"a": 0, "b": 1}
    assert resolve(lambda progress, weights: {"both": 6, "b": 2}).weights(7) == pytest.approx({"a": 3 / 8, "b": 5 / 8})
    halves = resolve(lambda progress, weights: {"a": 1 - progress, "b": progress}).weights_at(np.array([0, 4, 7, 99]))
    assert halves.tolist() == [[1, 0], [0.5, 0.5], [0.125, 0.875], [0.125, 0.875]]
    thirds = resolve(lambda progress, weights: {"a": 1, "b": 2}).weights_at(np.arange(8))
    assert np.abs(thirds.sum(axis=1) - 1).max() < 1e-15


def test_a_process_that_reads_ahead_does_not_call_it(resolve: Callable[..., ResolvedCurriculum]) -> None:
    resolved = resolve(lambda progress, weights: {"a": progress, "b": 1})  # a lambda cannot be pickled
    there: ResolvedCurriculum = pickle.loads(pickle.dumps(resolved))
    assert (there.weights_at(np.arange(8)) == resolved.weights_at(np.arange(8))).all()


def test_the_digest_follows_the_weights_alone(resolve: Callable[..., ResolvedCurriculum]) -> None:
    def digest(policy: Policy) -> str:
        shares = resolve(policy).policy_shares
        assert shares
        return shares.digest

    assert digest(lambda p, w: w) == digest(lambda p, w: {s: 2 * share for s, share in w.items()})
    assert digest(lambda p, w: {s: share * (1 + 1e-15 * n) for n, (s, share) in enumerate(w.items())}) == digest(
        lambda p, w: w
    )
    assert digest(lambda p, w: w) != digest(lambda p, w: {"b": 1} if p > 0.8 else w)


def test_the_limits_of_sources_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRICULUM_POLICIES, "b_alone", lambda progress, weights: {"b": 1, "a": 0.001})
    curriculum = Curriculum(
        keyframes=FRAMES, mixes=MIXES, max_epochs={"b": 2}, on_exhausted="redistribute", policy={"name": "b_alone"}
    )
    resolved = curriculum.resolve(steps=8, tokens_per_step=1)
    order = SampleOrder(resolved, sequences={"a": 100, "b": 10}, global_batch=8, seed=0)
    assert order.counts(8) == {"a": 44, "b": 20}


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            lambda p, w: {"a": 0.5 - p, "b": 1},
            r"mine at progress 0\.625: weights\.a is -0\.125: it must be a number, 0 or more",
        ),
        (lambda p, w: {"a": float("nan")}, r"mine at progress 0: weights\.a is nan: it must be a number, 0 or more"),
        (
            lambda p, w: {"a": 0},
            r"mine at progress 0: weights are all 0: at least one must be above 0",
        ),
        (lambda p, w: {"c": 1}, r"mine at progress 0: weights has c: the keyframes give weight only to a, b"),
        (lambda p, w: None, r"mine at progress 0: weights is None: it must map sources to weights"),
        (lambda p, w: w["c"], r"mine at progress 0 failed \(KeyError: 'c'\)"),
    ],
)
def test_a_wrong_result_is_one_sentence(
    resolve: Callable[..., ResolvedCurriculum], policy: Policy, sentence: str
) -> None:
    with pytest.raises(ValueError, match=rf"^curriculum\.policy {sentence}\.$"):
        resolve(policy)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"name": "heat"}, r"policy\.name is 'heat': it must be one of mine\."),
        ("mine", r"policy is 'mine': it must have name and the settings of that policy, or be null\."),
        ({"power": 2}, r"policy is {'power': 2}: it must have name"),
        ({"name": "mine"}, r"policy: the settings of mine do not fit: missing a required argument: 'power'\."),
        (
            {"name": "mine", "power": 1, "pwer": 2},
            r"policy: the settings of mine do not fit: got an unexpected keyword argument 'pwer'\.",
        ),
    ],
)
def test_a_wrong_section_is_one_sentence(policy: Any, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRICULUM_POLICIES, "mine", lambda progress, weights, *, power: weights)
    with pytest.raises(ValueError, match=rf"^curriculum\.{sentence}"):
        Curriculum(keyframes=FRAMES, mixes=MIXES, policy=policy)


def test_without_a_registered_policy_the_advice_is_to_import_one() -> None:
    with pytest.raises(ValueError, match=r"no policy is registered\. Import the module .* with \+imports=\[my_mod"):
        Curriculum(keyframes=FRAMES, mixes=MIXES, policy={"name": "heat"})


@pytest.mark.parametrize("other", [{"replay": {"a": 0.1}}, {"ado": {"every": 1, "warmup": 0}}])
def test_what_else_changes_the_weights_does_not_go_with_it(
    other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CURRICULUM_POLICIES, "mine", lambda progress, weights: weights)
    frames = {"start": FRAMES["start"]}
    with pytest.raises(
        ValueError, match=rf"^curriculum\.policy cannot be combined with curriculum\.{next(iter(other))}: rem"
    ):
        Curriculum(keyframes=frames, mixes=MIXES, policy={"name": "mine"}, **other)
