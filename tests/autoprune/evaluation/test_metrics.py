"""Scores equal a naive computation, one image at a time, and depend on images and weights alone."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import DatasetError, ModelError, NumericalError, SearchError
from autoprune.evaluation.metrics import Scores, predict, score

CPU = torch.device("cpu")
N, CLASSES = 83, 9


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(0, CLASSES, (N,), generator=torch.Generator().manual_seed(4))


def network(seed: int = 0, classes: int = CLASSES) -> nn.Sequential:
    """A small classifier with batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, classes)
        ).eval()


def naive(logits: list[list[float]], labels: list[int], reference: list[list[float]]) -> Scores:
    """The definitions, written out in plain Python."""
    hits = fives = same = 0
    loss = kl = 0.0
    for row, label, other in zip(logits, labels, reference, strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        hits += order[0] == label
        fives += label in order[:5]
        same += order[0] == max(range(len(other)), key=lambda k: other[k])
        p = [math.exp(v) / sum(map(math.exp, other)) for v in other]
        q = [math.exp(v) / sum(map(math.exp, row)) for v in row]
        loss -= math.log(q[label])
        kl += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    n = len(labels)
    return Scores(hits / n, fives / n, loss / n, same / n, kl / n, n)


def test_scores_equal_the_definitions(inputs: Tensor, labels: Tensor) -> None:
    module, unpruned = network(0), network(1)
    reference = predict(unpruned, inputs, device=CPU)
    with torch.no_grad():
        logits = torch.cat([module(image[None]) for image in inputs])
    expected = naive(logits.double().tolist(), labels.tolist(), reference.double().tolist())
    found = score(module, inputs, labels, reference_logits=reference, device=CPU)
    assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)
    assert (found.top1, found.top5, found.agreement, found.images) == (
        pytest.approx(expected.top1), pytest.approx(expected.top5), pytest.approx(expected.agreement), N
    )  # fmt: skip


def test_batch_size_and_order_do_not_show(inputs: Tensor, labels: Tensor) -> None:
    module = network()
    reference = predict(network(1), inputs, device=CPU)
    whole = score(module, inputs, labels, reference_logits=reference, device=CPU).to_dict()
    for batch_size in (1, 7, 82, 83, 1000):
        cut = score(module, inputs, labels, reference_logits=reference, batch_size=batch_size, device=CPU)
        assert cut.to_dict() == pytest.approx(whole, abs=1e-6)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(9))
    turned = score(module, inputs[order], labels[order], reference_logits=reference[order], device=CPU)
    assert turned.to_dict() == pytest.approx(whole, abs=1e-6)


def test_without_labels_there_is_agreement_and_divergence(inputs: Tensor) -> None:
    unpruned = network(1)
    reference = predict(unpruned, inputs, device=CPU)
    itself = score(unpruned, inputs, None, reference_logits=reference, device=CPU)
    assert itself == Scores(None, None, None, 1.0, 0.0, N)
    assert (itself.objective, itself.regret) == (1.0, 0.0)
    other = score(network(0), inputs, None, reference_logits=reference, device=CPU)
    assert other.agreement is not None
    assert other.agreement < 1
    assert other.kl is not None
    assert other.kl > 0


def test_without_a_reference_there_is_accuracy(inputs: Tensor, labels: Tensor) -> None:
    scores = score(network(), inputs, labels, device=CPU)
    assert (scores.agreement, scores.kl) == (None, None)
    assert (scores.objective, scores.regret) == (scores.top1, scores.loss)


def test_the_module_and_the_random_state_stay_as_they_are(inputs: Tensor, labels: Tensor) -> None:
    module = network().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    strides = [parameter.stride() for parameter in module.parameters()]
    state = torch.random.get_rng_state()
    first, second = (score(module, inputs, labels, device=CPU) for _ in range(2))
    assert first == second == score(network(), inputs, labels, device=CPU)
    assert all(layer.training for layer in module.modules())
    assert [parameter.stride() for parameter in module.parameters()] == strides
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_predictions_are_ordinary_float32_tensors(inputs: Tensor) -> None:
    for precision, batch_size in (("fp32", 4), ("bf16", 4), ("fp32", 9)):
        logits = predict(network(), inputs[:9], batch_size=batch_size, precision=precision, device=CPU)
        assert (logits.dtype, logits.shape, logits.is_inference()) == (torch.float32, (9, CLASSES), False)


def test_bf16_is_close_to_fp32(inputs: Tensor) -> None:
    exact = predict(network(), inputs[:20], device=CPU)
    rounded = predict(network(), inputs[:20], precision="bf16", device=CPU)
    assert 0 < float((exact - rounded).abs().max()) < 0.05


@pytest.mark.parametrize(("classes", "known"), [(4, False), (5, False), (6, True)])
def test_top5_where_it_says_something(inputs: Tensor, classes: int, known: bool) -> None:
    labels = torch.arange(N) % classes
    assert (score(network(classes=classes), inputs, labels, device=CPU).top5 is not None) is known


def test_a_collapsed_network_is_right_by_chance_only(inputs: Tensor) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    nn.init.zeros_(module[1].weight)
    nn.init.zeros_(module[1].bias)
    labels = torch.arange(N) % CLASSES
    scores = score(module, inputs, labels, device=CPU)
    assert scores.top1 == pytest.approx(float((labels == 0).double().mean()))
    assert scores.top5 == pytest.approx(float((labels < 5).double().mean()))
    assert scores.loss == pytest.approx(math.log(CLASSES))


def test_json_brings_back_the_same_scores(inputs: Tensor, labels: Tensor) -> None:
    scores = score(network(), inputs, labels, reference_logits=predict(network(1), inputs, device=CPU), device=CPU)
    for value in (scores, replace(scores, top1=0.1 + 0.2, kl=None)):
        assert Scores.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    with pytest.raises(SearchError, match="expected the keys"):
        Scores.from_dict({"top1": 0.5})


def test_inputs_that_cannot_be_scored(inputs: Tensor, labels: Tensor) -> None:
    module = network()
    with pytest.raises(DatasetError, match="found neither"):
        score(module, inputs, None)
    with pytest.raises(DatasetError, match="found none"):
        predict(module, inputs[:0])
    with pytest.raises(DatasetError, match=r"shape \(83,\), found \(82,\)"):
        score(module, inputs, labels[1:], device=CPU)
    with pytest.raises(DatasetError, match=r"from 0 to 8.*found 0 to 9"):
        score(module, inputs, labels + (labels == 8), device=CPU)
    with pytest.raises(ModelError, match="same classes"):
        score(module, inputs, None, reference_logits=torch.zeros(N, 3), device=CPU)
    with pytest.raises(ModelError, match="expected a classifier"):
        score(module[0], inputs, labels, device=CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite(inputs: Tensor, labels: Tensor, value: float) -> None:
    module = network()
    with torch.no_grad():
        module[5].bias[2] = value
    with pytest.raises(NumericalError, match="not finite"):
        score(module, inputs, labels, device=CPU)
