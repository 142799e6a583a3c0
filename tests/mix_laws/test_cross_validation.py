"""Whether a law is believed: left-out runs, baselines, noise."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from mix_laws import fit_mix_law
from mix_laws.cross_validation import (
    ErrorReduction,
    distinct_mixes,
    noise_between_repeats,
    rank_correlation,
    split_folds,
)
from mix_laws.parameter_fit import fit_samples
from mix_laws.verdict_text import law_sentences
from tests.synthetic_mix_runs import runs_of, world


def test_each_run_is_predicted_from_the_others_alone() -> None:
    ratios, losses = runs_of(world(), 14)
    law = fit_mix_law(ratios, losses)
    assert law.check.leaves_one_out
    for n in (0, 5, 13):
        others = np.arange(14) != n
        fitted = fit_samples(ratios[others], losses[others], np.ones((1, 13)), law.form, start=law.parameters)[0]
        predicted = fitted[:, 0] + np.exp(law.form.features(ratios[[n]])[0] @ fitted[:, 1:].T)
        assert law.check.predicted[n] == pytest.approx(predicted, abs=1e-3)
        assert law.check.mean[n] == pytest.approx(losses[others].mean(axis=0) - losses[n])
        plane = np.linalg.lstsq(ratios[others], losses[others], rcond=None)[0]
        assert law.check.linear[n] == pytest.approx(ratios[n] @ plane - losses[n])


def test_repeats_of_a_mix_are_left_out_together_and_show_the_noise() -> None:
    ratios, losses = runs_of(world(), 12)
    ratios[[3, 7]] = ratios[1]
    folds = split_folds(ratios, most=64)
    assert folds[1] == folds[3] == folds[7]
    assert len(set(folds)) == len(distinct_mixes(ratios)) == 10
    noise, degrees = noise_between_repeats(ratios, losses)
    assert degrees == 2
    assert noise == pytest.approx(losses[[1, 3, 7]].std(axis=0, ddof=1))
    assert noise_between_repeats(ratios[[0, 1, 2]], losses[[0, 1, 2]])[1] == 0
    assert "2 degrees of freedom" in " ".join(law_sentences(fit_mix_law(ratios, losses)))


def test_where_the_mix_does_not_matter_nothing_beats_the_mean() -> None:
    believed = 0
    for seed in range(5):
        law = fit_mix_law(*runs_of(world(spread=0.0), 20, seed=seed))
        believed += law.check.beats_mean
        if not law.check.beats_mean:
            assert "No model predicts left-out runs better than their mean" in " ".join(law_sentences(law))
        assert np.abs(law.predict(law.ratios) - law.losses.mean(axis=0)).max() < 0.02
    assert believed <= 1


def test_a_plane_is_not_beaten_where_the_world_is_one() -> None:
    ratios, _ = runs_of(world(), 20)
    slopes = np.random.default_rng(0).uniform(3, 4, (4, 4))
    losses = ratios @ slopes + 0.005 * np.random.default_rng(1).normal(size=(20, 4))
    law = fit_mix_law(ratios, losses)
    assert law.check.beats_mean
    assert not law.check.beats_linear
    assert "not significantly better than a linear fit" in " ".join(law_sentences(law))


def test_a_curve_beats_the_plane_and_too_few_runs_are_said() -> None:
    words = " ".join(law_sentences(fit_mix_law(*runs_of(world(), 20))))
    assert "less than a linear fit (p" in words
    assert "Too few" not in words
    assert "Too few runs: 7 of 4 sources" in law_sentences(fit_mix_law(*runs_of(world(), 7)))[0]
    assert "12 runs for 4 sources are enough" in law_sentences(fit_mix_law(*runs_of(world(), 12)))[0]


def test_a_gain_is_a_paired_test() -> None:
    random = np.random.default_rng(0)
    ours = random.normal(size=(30, 2))
    assert ErrorReduction.of(ours * 2, ours, np.ones(2)).share == pytest.approx(0.5)
    assert ErrorReduction.of(ours * 2, ours, np.ones(2)).is_clear
    assert not ErrorReduction.of(ours, ours, np.ones(2)).is_clear
    assert not ErrorReduction.of(ours, ours * 2, np.ones(2)).is_clear


def test_ranks_are_spearmans() -> None:
    a, b = np.random.default_rng(0).integers(0, 9, (2, 40, 3)).astype(float)
    assert rank_correlation(a, b) == pytest.approx([spearmanr(a[:, n], b[:, n])[0] for n in range(3)])
