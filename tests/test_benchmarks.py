"""The benchmarks measure what they say, and the docs say what they measured."""

from pathlib import Path

import pytest

from analysis.hours_and_loss_from_sizes import peak_flops
from benchmarks import (
    architecture_ablation,
    count_cuda_calls,
    loading,
    optimizer_and_schedule_ablation,
    width,
    write_docs_tables,
)
from benchmarks.gpu_day.speed_candidates import SHAPE, model_config
from gpt_lightning.model.model_size import build_meta_model, flops_per_token

ROOT = Path(__file__).resolve().parent.parent


def test_the_docs_show_the_results() -> None:
    assert write_docs_tables.markdown() in (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def test_the_docs_show_what_was_counted_without_a_gpu() -> None:
    assert count_cuda_calls.markdown() in (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def test_the_docs_show_what_choices_are_worth() -> None:
    assert architecture_ablation.markdown() in (ROOT / "docs" / "explanation" / "model.md").read_text(encoding="utf-8")


def test_the_docs_show_where_the_best_rates_lie() -> None:
    assert width.markdown() in (ROOT / "docs" / "recipes" / "optimizers.md").read_text(encoding="utf-8")


def test_the_docs_show_what_optimizer_and_schedule_are_worth() -> None:
    assert optimizer_and_schedule_ablation.markdown() in (ROOT / "docs" / "recipes" / "optimizers.md").read_text(
        encoding="utf-8"
    )


def test_flops_of_a_token_count_every_matrix() -> None:
    model = build_meta_model(model_config({}, SHAPE))
    n_parameters = model.n_parameters() - model.positions.weight.numel()
    expected = 6 * n_parameters + 12 * 12 * 768 * 1024
    assert flops_per_token(model) == pytest.approx(expected, rel=2e-3)  # all but biases and norms


def test_an_unknown_device_has_no_peak() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-40GB") == 312e12
    assert peak_flops("NVIDIA L40") is None


@pytest.mark.parametrize("who", ["ours", "bare"])
def test_batches_are_served_and_counted(who: str) -> None:
    result = loading.measure(who, tokens=5_000, max_seq_len=16, batch=4, steps=50, seconds=0.01)
    assert all(value > 0 for value in result.values())
    assert len(result) == (3 if who == "ours" else 1)  # ours is also started and resumed
