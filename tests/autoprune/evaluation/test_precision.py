"""The choice of a precision is a fact of the machine; a ranking is compared pair by pair."""

import pytest
import torch

from autoprune.errors import UnknownNameError
from autoprune.evaluation.precision import choose_precision, same_ranking
from autoprune.network.device import default_device


def test_auto_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto") == choose_precision("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for capabilities, expected in (
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({}, "fp32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert choose_precision("auto") == expected


def test_what_is_asked_for_is_taken() -> None:
    assert choose_precision("fp32") == "fp32"
    assert choose_precision("bf16") == "bf16"
    with pytest.raises(UnknownNameError, match="precision 'fp16'"):
        choose_precision("fp16")  # type: ignore[arg-type]


def test_the_default_device_exists() -> None:
    assert torch.zeros(1, device=default_device()).item() == 0


@pytest.mark.parametrize(
    ("scores_a", "scores_b", "same"),
    [
        ([], [], True),
        ([0.5], [0.1], True),
        ([0.1, 0.5, 0.3], [0.2, 0.9, 0.4], True),
        ([0.1, 0.5, 0.3], [0.2, 0.4, 0.9], False),
        ([0.5, 0.5], [0.7, 0.7], True),
        ([0.5, 0.5], [0.7, 0.6], False),
        ([0.6, 0.5], [0.6, 0.6], False),
    ],
)
def test_same_ranking(scores_a: list[float], scores_b: list[float], same: bool) -> None:
    assert same_ranking(scores_a, scores_b) is same
    assert same_ranking(scores_b, scores_a) is same


def test_rankings_of_other_lengths_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        same_ranking([1.0, 2.0], [1.0])
