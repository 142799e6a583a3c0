"""The factor between two means."""

import torch

from gpt_lightning.loss_normalization import loss_normalization


def test_a_mean_over_all_targets_becomes_one_over_those_that_bear_loss() -> None:
    nats, mask = torch.rand(24), torch.arange(24) < 9
    over_all = (nats * mask).sum() / 24
    torch.testing.assert_close(over_all * loss_normalization(24, mask.sum()), nats[mask].mean())


def test_without_a_loss_bearing_token_it_is_finite() -> None:
    assert loss_normalization(24, torch.zeros(())) == 24
