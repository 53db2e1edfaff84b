"""Fine-tuning brings accuracy back, gives the same weights for the same seed, and touches nothing of the caller's."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoprune.errors import Cancelled, DatasetError, ModelError, NumericalError, SearchError
from autoprune.evaluation.metrics import predict, score
from autoprune.recovery.augmentation import augmented
from autoprune.recovery.finetune import FinetuneSettings, finetune, training_loss

CPU = torch.device("cpu")
SGD = FinetuneSettings(
    epochs=3,
    optimizer="sgd",
    learning_rate=0.02,
    warmup_epochs=0,
    batch_size=32,
    distillation=0.5,
    freeze_batchnorm=False,
)
QUICK = replace(SGD, epochs=2, batch_size=16)
Digits = tuple[Tensor, Tensor, Tensor, Tensor]


def network(seed: int = 0, side: int = 8, classes: int = 10) -> nn.Sequential:
    """A small CNN for one-channel images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1),
            nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
            nn.Linear(16 * (side // 2) ** 2, classes),
        ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Images and labels to fit, images and labels to judge."""
    bunch = load_digits()
    images = (torch.from_numpy(bunch.images).float()[:, None] - 4.9) / 6.0
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    fit, judge = order[:1200], order[1200:]
    return images[fit], labels[fit], images[judge], labels[judge]


@pytest.fixture(scope="module")
def trained(digits: Digits) -> nn.Sequential:
    """A network trained from scratch."""
    settings = replace(SGD, epochs=4, learning_rate=0.05)
    return finetune(network(), digits[0], digits[1], settings, device=CPU).module


@pytest.fixture(scope="module")
def damaged(trained: nn.Sequential) -> nn.Sequential:
    """The trained network after noise on all its weights."""
    module, generator = copy.deepcopy(trained), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += parameter.abs().mean() * 1.5 * torch.randn(parameter.shape, generator=generator)
    return module


def accuracy(module: nn.Module, digits: Digits) -> float:
    top1 = score(module, digits[2], digits[3], device=CPU).top1
    assert top1 is not None
    return top1


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"distillation": 0.0},
        {"distillation": 0.5, "label_smoothing": 0.1, "warmup_epochs": 1},
        {"optimizer": "adamw", "learning_rate": 0.005},
        {"optimizer": "relative-adamw", "learning_rate": 0.05},
        {"optimizer": "relative-adamw", "learning_rate": 0.05, "freeze_batchnorm": True, "epochs": 8},
    ],
)
def test_damage_is_repaired(
    digits: Digits, trained: nn.Sequential, damaged: nn.Sequential, changes: dict[str, object]
) -> None:
    settings = replace(SGD, **changes)
    before, best = accuracy(damaged, digits), accuracy(trained, digits)
    assert best > 0.94
    assert before < best - 0.15
    result = finetune(damaged, digits[0], digits[1], settings, teacher=trained, device=CPU)
    assert accuracy(result.module, digits) > best - 0.04
    assert result.history[-1].loss < result.history[0].loss


def test_the_teacher_alone_repairs_it(digits: Digits, trained: nn.Sequential, damaged: nn.Sequential) -> None:
    result = finetune(damaged, digits[0], None, SGD, teacher=trained, device=CPU)
    assert accuracy(result.module, digits) > accuracy(trained, digits) - 0.04
    reference = predict(trained, digits[2], device=CPU)
    before = score(damaged, digits[2], None, reference_logits=reference, device=CPU)
    after = score(result.module, digits[2], None, reference_logits=reference, device=CPU)
    assert after.regret < before.regret / 2


def test_half_precision_repairs_it_too_and_leaves_whole_weights(
    digits: Digits, trained: nn.Sequential, damaged: nn.Sequential
) -> None:
    runs = [
        finetune(damaged, digits[0], digits[1], SGD, teacher=trained, precision="bf16", device=CPU).module
        for _ in range(2)
    ]
    assert equal(weights(runs[0]), weights(runs[1]))
    assert all(value.dtype != torch.bfloat16 for value in runs[0].state_dict().values())
    assert accuracy(runs[0], digits) > accuracy(trained, digits) - 0.04


def test_same_seed_same_weights_whatever_the_global_state(digits: Digits, trained: nn.Sequential) -> None:
    inputs = torch.nn.functional.interpolate(digits[0][:64], size=(16, 16))  # large enough to be augmented
    runs = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 7)):
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            state = torch.random.get_rng_state()
            result = finetune(network(side=16), inputs, digits[1][:64], replace(QUICK, seed=seed), device=CPU)
            assert torch.equal(torch.random.get_rng_state(), state)
        runs.append((weights(result.module), [epoch.loss for epoch in result.history]))
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not equal(runs[0][0], runs[2][0])


def test_nothing_of_the_callers_changes(digits: Digits, trained: nn.Sequential) -> None:
    module, inputs, labels = network(3).train(), digits[0][:80].clone(), digits[1][:80].clone()
    module[0].weight.requires_grad_(False)
    teacher = copy.deepcopy(trained).train()
    before = [weights(module), weights(teacher), {"inputs": inputs.clone(), "labels": labels.clone()}]
    result = finetune(module, inputs, labels, QUICK, teacher=teacher, device=CPU)
    after = [weights(module), weights(teacher), {"inputs": inputs, "labels": labels}]
    assert all(equal(a, b) for a, b in zip(before, after, strict=True))
    assert module.training
    assert teacher.training
    assert all(p.grad is None for net in (module, teacher, result.module) for p in net.parameters())
    assert not torch.equal(result.module[0].weight, module[0].weight)
    assert not any(layer.training for layer in result.module.modules())
    assert all(tensor.is_contiguous() for tensor in result.module.state_dict().values())


def test_no_epochs_give_a_copy(digits: Digits) -> None:
    module = network().train()
    result = finetune(module, digits[0], digits[1], replace(QUICK, epochs=0))
    assert result.module is not module
    assert not result.module.training
    assert equal(weights(result.module), weights(module))
    assert result.history == ()


def test_progress_and_history(digits: Digits) -> None:
    seen: list[tuple[int, int, str]] = []
    settings = replace(SGD, batch_size=16, warmup_epochs=1)
    trained, history = finetune(
        network(), digits[0][:70], digits[1][:70], settings, progress=lambda *step: seen.append(step), device=CPU
    )
    assert isinstance(trained, nn.Sequential)
    assert [(done, total) for done, total, _ in seen] == [(step, 12) for step in range(1, 13)]
    assert seen[-1][2].startswith("epoch 3 of 3, loss ")
    assert [epoch.learning_rate for epoch in history] == [settings.learning_rate_at(s, 4) for s in (3, 7, 11)]
    assert all(math.isfinite(epoch.loss) and epoch.seconds > 0 for epoch in history)


def test_progress_may_stop_the_training(digits: Digits) -> None:
    def stop(done: int, total: int, text: str) -> None:
        raise Cancelled(text)

    state = torch.random.get_rng_state()
    with pytest.raises(Cancelled):
        finetune(network(), digits[0], digits[1], QUICK, progress=stop, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_the_published_one(weight: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, target = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    settings = FinetuneSettings(distillation=weight, label_smoothing=0.1, temperature=3.0)
    hard = soft = 0.0
    for row, other, label in zip(logits, target, labels.tolist(), strict=True):
        wanted = torch.full((4,), 0.1 / 4, dtype=torch.float64)
        wanted[label] += 0.9
        hard -= float((wanted * row.softmax(0).log()).sum()) / 6
        p, q = (other / 3).softmax(0), (row / 3).softmax(0)
        soft += float((p * (p / q).log()).sum()) / 6
    expected = (1 - weight) * hard + weight * 9 * soft
    assert float(training_loss(logits, labels, target, settings)) == pytest.approx(expected)
    assert float(training_loss(logits, labels, None, settings)) == pytest.approx(hard)
    assert float(training_loss(logits, None, target, settings)) == pytest.approx(9 * soft)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    settings = FinetuneSettings(epochs=4, learning_rate=0.1, warmup_epochs=1)
    rates = [settings.learning_rate_at(step, 10) for step in range(40)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == max(rates) == 0.1
    assert rates[25] == pytest.approx(0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_a_part_of_an_epoch_warms_up() -> None:
    settings = FinetuneSettings(epochs=1, learning_rate=0.1, warmup_epochs=0.3)
    assert [settings.learning_rate_at(step, 10) for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    almost_all = FinetuneSettings(epochs=1, learning_rate=0.01, warmup_epochs=0.99)
    assert all(0 < almost_all.learning_rate_at(step, 3) <= 0.01 for step in range(3))


def test_a_relative_rate_changes_every_tensor_by_the_same_share(digits: Digits) -> None:
    settings = FinetuneSettings(
        epochs=1, learning_rate=0.01, warmup_epochs=0, optimizer="relative-adamw", weight_decay=0.0
    )
    module = network()
    with torch.no_grad():
        module[0].weight *= 100
    tuned = finetune(module, digits[0][:64], digits[1][:64], settings, device=CPU).module
    for name in ("0.weight", "1.weight", "5.weight", "9.weight"):
        before, after = module.get_parameter(name).detach(), tuned.get_parameter(name).detach()
        change = (after - before).abs().median() / before.square().mean().sqrt()
        assert change.item() == pytest.approx(0.01, rel=0.01), name  # AdamW's first step has the size of the rate


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_crops_padded_images(flip: bool) -> None:
    images = torch.arange(1, 1 + 60 * 2 * 16 * 24, dtype=torch.float32).reshape(60, 2, 16, 24)
    result = augmented(images, torch.Generator().manual_seed(0), flip=flip)
    assert result.shape == images.shape
    mirrored = 0
    for image, crop in zip(images, result, strict=True):
        padded = nn.functional.pad(image, (3, 3, 2, 2))
        windows = [padded[:, y : y + 16, x : x + 24] for y in range(5) for x in range(7)]
        straight = any(torch.equal(crop, window) for window in windows)
        turned = any(torch.equal(crop.flip(2), window) for window in windows)
        assert straight or turned
        mirrored += turned
    assert (10 < mirrored < 50) if flip else mirrored == 0
    assert not torch.equal(result, images)


def test_tiny_images_are_not_augmented() -> None:
    images = torch.randn(4, 1, 8, 8)
    assert augmented(images, torch.Generator(), flip=True) is images


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": -1}, "epochs must be a whole number"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"optimizer": "adam"}, "'adamw' or 'relative-adamw', found 'adam'"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": float("inf")}, "learning_rate must be"),
        ({"warmup_epochs": 3}, "fewer than the 3 epochs"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"weight_decay": -1e-4}, "weight_decay must be"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"label_smoothing": 1.0}, "label_smoothing must be"),
        ({"distillation": 1.1}, "distillation must be"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"hints": -1.0}, "hints must be"),
        ({"hints": float("inf")}, "hints must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**63}, "seed must be"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(SearchError, match=expected):
        FinetuneSettings(**changes)  # type: ignore[arg-type]


def test_inputs_that_cannot_be_trained_on(digits: Digits) -> None:
    inputs, labels = digits[0][:40], digits[1][:40]
    with pytest.raises(DatasetError, match="found neither"):
        finetune(network(), inputs, None, QUICK)
    with pytest.raises(DatasetError, match=r"at least 2 images.*found 1"):
        finetune(network(), inputs[:1], labels[:1], QUICK)
    with pytest.raises(DatasetError, match="one label per image"):
        finetune(network(), inputs, labels[1:], QUICK)
    with pytest.raises(DatasetError, match="from 0 to 5"):
        finetune(network(classes=6), inputs, labels, QUICK)
    with pytest.raises(ModelError, match="like the unpruned network's"):
        finetune(network(), inputs, labels, QUICK, teacher=network(classes=6))
    with pytest.raises(ModelError, match="with weights"):
        finetune(nn.Flatten(), inputs, labels, QUICK)


def test_divergence_says_what_to_do(digits: Digits) -> None:
    settings = replace(QUICK, learning_rate=1e12)
    with pytest.raises(NumericalError, match=r"diverged.*learning rate below 1e\+12"):
        finetune(network(), digits[0][:200], digits[1][:200], settings, device=CPU)


def test_images_that_are_not_finite_are_refused(digits: Digits) -> None:
    broken = digits[0][:40].clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericalError, match="not finite"):
        finetune(network(), broken, digits[1][:40], QUICK, device=CPU)


def test_a_penalty_is_added_to_the_loss_of_each_step(digits: Digits, trained: nn.Sequential) -> None:
    def penalty(module: nn.Module) -> Tensor:
        return 0.05 * module.get_parameter("9.weight").abs().sum()

    plain = finetune(trained, digits[0], digits[1], QUICK, device=CPU)
    pulled = finetune(trained, digits[0], digits[1], QUICK, penalty=penalty, device=CPU)
    sizes = [each.module.get_parameter("9.weight").abs().sum() for each in (plain, pulled)]
    assert sizes[1] < 0.5 * sizes[0]
    assert pulled.history[0].loss > plain.history[0].loss


def test_after_each_step_the_network_may_be_changed(digits: Digits, trained: nn.Sequential) -> None:
    seen: list[int] = []

    def clear(module: nn.Module, done: int) -> None:
        seen.append(done)
        with torch.no_grad():
            module.get_parameter("9.weight")[:, ::2] = 0

    module = finetune(trained, digits[0][:64], digits[1][:64], QUICK, after_step=clear, device=CPU).module
    assert seen == list(range(1, 9))
    assert not module.get_parameter("9.weight")[:, ::2].any()
    assert module.get_parameter("9.weight")[:, 1::2].all()


def test_training_goes_on_from_a_step_of_the_schedule(digits: Digits, trained: nn.Sequential) -> None:
    images, labels = digits[0][:64], digits[1][:64]
    done: list[int] = []
    settings = replace(QUICK, epochs=3)  # four steps each
    whole = finetune(trained, images, labels, settings, device=CPU)
    rest = finetune(
        trained, images, labels, settings, first_step=6, after_step=lambda _, step: done.append(step), device=CPU
    )
    assert done == [7, 8, 9, 10, 11, 12]
    assert len(rest.history) == 2
    assert [epoch.learning_rate for epoch in rest.history] == [epoch.learning_rate for epoch in whole.history[1:]]
    for wrong in (-1, 12):
        with pytest.raises(SearchError, match="first step from 0 to 11"):
            finetune(trained, images, labels, settings, first_step=wrong, device=CPU)


def test_chosen_images_are_trained_on_as_copies_of_them_are(digits: Digits) -> None:
    chosen = torch.arange(150) % 60
    images, labels = digits[0], digits[1]
    copied = finetune(network(), images[chosen], labels[chosen], QUICK, device=CPU)
    found = finetune(network(), images, labels, QUICK, chosen=chosen, device=CPU)
    assert [epoch.loss for epoch in copied.history] == [epoch.loss for epoch in found.history]
    assert torch.equal(predict(copied.module, images), predict(found.module, images))
