"""Every network of the corpus, from both exporters, pruned in half: masked = pruned = exported, counted = found."""

from pathlib import Path

import pytest

from autoprune.certificate import check_parity, count_onnx
from autoprune.costs.cost_model import cost_model
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import export_onnx
from autoprune.groups.channel_group import find_groups
from autoprune.pruning.surgery import prune
from autoprune.pruning.verify import masked_error
from tests.corpus import NETWORKS, exported, images
from tests.oracles import macs_by_hooks, random_plan

# What a network with this wiring must be able to prune: (groups without residual streams, with them).
PRUNABLE = {
    "vgg": (4, 4),
    "lenet": (3, 3),
    "resnet_padded": (6, 9),
    "resnet_projected": (3, 6),
    "mobilenet_v1": (4, 4),
    "mobilenet_v2": (6, 7),
    "resnext": (4, 5),
    "se_conv": (4, 4),
    "se_linear": (4, 4),
    "densenet": (5, 5),
    "inception": (13, 13),
    "unet": (7, 7),
    "shufflenet_v1": (1, 2),
    "shufflenet_v2": (5, 5),
    "irregular": (3, 3),
    "vit_token": (2, 2),
    "vit_mean": (2, 2),
    "upsampler": (2, 3),
    "convnext": (2, 2),
}


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_every_group_goes(name: str, exporter: str, tmp_path: Path) -> None:
    network = load_network(exported(name, exporter))  # type: ignore[arg-type]  # a literal
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=True)
    assert (len(groups.prunable()), len(chosen)) == PRUNABLE[name]
    inputs = images(name)
    for seed in range(3):
        plan = random_plan(chosen, seed, ratio=0.5)
        assert masked_error(network, groups, plan, inputs) <= 1e-5
        pruned = prune(network, groups, plan)
        costs = cost_model(network, groups, chosen, opset=17)
        kept = [len(plan.kept[group.name]) for group in chosen]
        assert costs.cost(kept)["macs"] == macs_by_hooks(pruned, network.input_shape)
        assert pruned(inputs).shape == (len(inputs), *network.output_shape)
    file = tmp_path / "pruned.onnx"
    export_onnx(pruned, file, input_shape=network.input_shape, opset=17)
    assert check_parity(file, pruned, inputs) <= 1e-4
    predicted, counted = costs.cost(kept), count_onnx(file)
    assert (counted["macs"], counted["params"]) == (predicted["macs"], predicted["params"])
    assert predicted["bytes"] - 200 <= counted["bytes"] == file.stat().st_size <= predicted["bytes"]
