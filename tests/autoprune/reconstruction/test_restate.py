"""Batch norms restated in other statistics compute the same."""

import copy

import torch
from torch import nn

from autoprune.network.tracer import trace
from autoprune.reconstruction.restate import restate_batchnorm
from tests.corpus import NETWORKS, input_shape


def test_the_function_stays_and_the_statistics_are_those_of_the_images() -> None:
    network = trace(NETWORKS["resnet_padded"](), input_shape("resnet_padded"))
    module = network.module
    generator = torch.Generator().manual_seed(0)
    for norm in (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator))
        norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
        norm.weight.data.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
    images = torch.randn(300, *input_shape("resnet_padded"), generator=generator)
    with torch.no_grad():
        before = module(images)
        in_training = copy.deepcopy(module).train()(images)
        restate_batchnorm(module, images, torch.device("cpu"))
        torch.testing.assert_close(module(images), before, rtol=1e-3, atol=1e-3)
        restated = module.train()(images)
    assert (restated - before).abs().mean() < 0.05 * (in_training - before).abs().mean()


def test_channels_that_never_vary_stay() -> None:
    norm = torch.nn.BatchNorm2d(3).eval()
    norm.bias.data.fill_(2.0)
    images = torch.ones(4, 3, 5, 5)
    images[:, 0] = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(0))
    module = torch.nn.Sequential(norm)
    with torch.no_grad():
        before = module(images)
        restate_batchnorm(module, images, torch.device("cpu"))
        torch.testing.assert_close(module(images), before)
    assert norm.running_mean is not None
    assert norm.running_mean[1:].tolist() == [0.0, 0.0]
    assert norm.running_mean[0] != 0
