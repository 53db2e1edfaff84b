r"""A MobileNetV1 for CIFAR-10, trained from scratch: what amc.py searches within half of its latency.

    python benchmarks/mobilenet.py ../shared
    autoprune device measure runs/benchmark-mobilenet/mobilenet_v1_cifar10_jpeg.onnx --device laptop
    python benchmarks/amc.py ../shared --model runs/benchmark-mobilenet/mobilenet_v1_cifar10_jpeg.onnx \
        --budget latency=50% --device laptop

Of 32 x 32 pixels, so that its first layer has stride 1 (see the zoo). Takes about half an hour on a core.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from _scratch import SETTINGS

from autoprune.datasets.load import load_dataset
from autoprune.datasets.splits import make_splits
from autoprune.evaluation.metrics import score
from autoprune.formats.onnx_export import export_onnx
from autoprune.recovery.finetune import finetune
from autoprune.zoo.registry import build

NAME = "mobilenet_v1_cifar10_jpeg"
SHAPE = (3, 32, 32)


def main() -> None:
    """Train, score and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=49_000, help="to train on")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-mobilenet"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (
        load_dataset(arguments.shared / "data" / f"cifar10_jpeg_{name}.zip", input_shape=SHAPE)
        for name in ("train", "test")
    )
    splits = make_splits(train, report_dataset=test, fit_images=arguments.images, search_images=1000, seed=0)
    settings = replace(
        SETTINGS, epochs=arguments.epochs, learning_rate=0.1, warmup_epochs=0.5, batch_size=128, augment=True
    )
    torch.manual_seed(0)
    network = build("mobilenet_v1", num_classes=10, input_shape=SHAPE)
    trained = finetune(network.module, splits.fit.inputs, splits.fit.labels, settings, progress=_log).module
    arguments.output.mkdir(parents=True, exist_ok=True)
    export_onnx(trained, arguments.output / f"{NAME}.onnx", input_shape=SHAPE)
    print(f"{score(trained, splits.report.inputs, splits.report.labels).top1:.2%} on the test images")  # noqa: T201


def _log(done: int, total: int, text: str) -> None:
    """Print how far it is, now and then."""
    if done % 50 == 0:
        print(f"{done} of {total}: {text}", flush=True)  # noqa: T201 - a script's log


if __name__ == "__main__":
    main()
