"""Job results for tests: made up, but as a job would write them."""

import random

from autoprune.service.results.job_result import GroupView, JobResult, PolicyOutcome, ScoresView, TrialView

UNPRUNED = {"macs": 412_672, "params": 21_418, "bytes": 85_672}
LIMITS = {"macs": 206_336}
GROUPS = ("stem", "block1.conv1", "block1.conv2", "block2.conv1", "block3.conv1")
SIZES = (16, 16, 16, 32, 48)


def scores(top1: float, images: int) -> ScoresView:
    """Scores around an accuracy."""
    return ScoresView(
        top1=top1, top5=min(1.0, top1 + 0.03), loss=1.2 * (1 - top1), agreement=top1, kl=0.3 * (1 - top1), images=images
    )


def outcome(policy: str, top1: float, trials: int, seed: int) -> PolicyOutcome:
    """What a policy of that name could have found."""
    rng = random.Random(seed)  # noqa: S311 - test data
    views = []
    for number in range(trials):
        probe = trials > 1 and number < trials // 2
        share = rng.uniform(0.7, 0.99) if probe else rng.uniform(0.44, 0.5)
        score = top1 + 0.02 - (0.0 if probe and rng.random() < 0.6 else abs(rng.gauss(0, 0.05)))
        cost = {name: int(share * full) for name, full in UNPRUNED.items()}
        views.append(TrialView(number=number + 1, objective=min(score, 0.99), cost=cost, probe=probe))
    kept = {
        name: max(1, round(size * (0.7 if policy == "uniform" else rng.uniform(0.3, 1.0))))
        for name, size in zip(GROUPS, SIZES, strict=True)
        if name not in ("stem", "block1.conv2")
    }
    cost = {name: int(0.496 * full) for name, full in UNPRUNED.items()}
    certificate: dict[str, object] = {
        "format": "autoprune-certificate/1",
        "holds": True,
        "budget": "macs=50%",
        "limits": LIMITS,
        "cost": cost,
        "cost_unpruned": UNPRUNED,
        "file_bytes": 51_204,
        "onnx_sha256": "ab" * 32,
        "plan_sha256": "cd" * 32,
        "model_sha256": "ef" * 32,
        "parity_error": 3.1e-7,
        "parity_images": 64,
        "masked_error": 2.2e-15,
        "latency": {
            "pruned": {"median_ms": 0.069, "p10_ms": 0.061, "p90_ms": 0.082, "repeats": 200},
            "unpruned": {"median_ms": 0.11, "p10_ms": 0.094, "p90_ms": 0.13, "repeats": 200},
            "speedup": 1.54,
        },
        "splits": {"fit": "01" * 32, "search": "23" * 32, "report": "45" * 32},
        "seed": 0,
        "versions": {"python": "3.11", "torch": "2.13.0", "onnxruntime": "1.31.0"},
    }
    return PolicyOutcome(
        policy=policy,
        evaluations=trials,
        cached=trials // 4,
        seconds=0.21 * trials,
        kept=kept,
        cost=cost,
        search=scores(top1, 270),
        search_refit=scores(top1 + 0.01, 270),
        search_finetuned=scores(top1 + 0.03, 270),
        report=scores(top1 - 0.01, 269),
        report_finetuned=scores(top1 + 0.02, 269),
        trials=views,
        certificate=certificate,
        artifacts={
            "onnx": f"{policy}/model.onnx",
            "plan": f"{policy}/plan.json",
            "weights": f"{policy}/weights.safetensors",
            "certificate": f"{policy}/certificate.json",
        },
    )


def sample_result(*, model: str = "digits_cnn.onnx", warnings: tuple[str, ...] = ()) -> JobResult:
    """A finished job under uniform and sensitivity."""
    groups = [
        GroupView(
            name=name,
            units=size,
            producers=[name],
            consumers=["next"],
            macs_share=0.2,
            params_share=0.2,
            residual=name in ("stem", "block1.conv2"),
            frozen=None,
        )
        for name, size in zip(GROUPS, SIZES, strict=True)
    ]
    head = GroupView(
        name="fc", units=10, producers=["fc"], consumers=[], macs_share=0.01, params_share=0.02, residual=False,
        frozen="feeds the network's output",
    )  # fmt: skip
    return JobResult(
        model=model,
        architecture=None,
        model_sha256="ef" * 32,
        dataset="digits",
        normalization="0.3053/0.376",
        input_shape=[1, 8, 8],
        budget="macs=50%",
        limits=LIMITS,
        cost=UNPRUNED,
        groups=[*groups, head],
        decision_groups=["block1.conv1", "block2.conv1", "block3.conv1"],
        search=scores(0.97, 270),
        report=scores(0.965, 269),
        outcomes=[outcome("uniform", 0.91, 1, 1), outcome("sensitivity", 0.93, 40, 2)],
        best="sensitivity",
        warnings=list(warnings),
        seed=0,
        seconds=38.4,
    )
