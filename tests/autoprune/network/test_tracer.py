"""The tracer: the canonical network computes what the module computes, or a clear error says why not."""

import copy
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.network.layers import LAYERS, Add, Constant, Mean, Mul, Pad, Reshape, Slice
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from tests.corpus import NETWORKS, input_shape

IMAGE = (4, 8, 8)


class Lambda(nn.Module):
    """A function of the image, with a convolution before it and any layers beside it."""

    def __init__(self, function: Callable[["Lambda", Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, image: Tensor) -> Tensor:
        return self.function(self, self.conv(image))


def _check(module: nn.Module, shape: tuple[int, ...] = IMAGE) -> Network:
    """Trace, and compare with the module at several batch sizes."""
    module.eval()
    network = trace(module, shape)
    assert all(type(layer) in LAYERS for layer in network.layers().values())
    for batch in (1, 2, 5):
        images = torch.randn(batch, *shape)
        with torch.no_grad():
            torch.testing.assert_close(network.module(images), module(images), atol=1e-5, rtol=1e-5)
    return network


FUNCTIONS: dict[str, Callable[[Lambda, Tensor], Tensor]] = {
    "view of size": lambda m, x: x.view(x.size(0), -1),
    "view of shape": lambda m, x: x.view(x.shape[0], x.shape[1] // 2, 2, x.shape[2], -1),
    "flatten": lambda m, x: torch.flatten(x, 1),
    "unflatten": lambda m, x: x.unflatten(1, (2, 4)),
    "reshape": lambda m, x: torch.reshape(x, (-1, 2, 256)),
    "batch merged": lambda m, x: x.reshape(x.shape[0] * 2, 4, 8, 8).relu().reshape(-1, 8, 8, 8),
    "squeeze": lambda m, x: x[:, :1].squeeze(1),
    "squeeze dims": lambda m, x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
    "unsqueeze": lambda m, x: x.unsqueeze(1)[:, 0],
    "permute": lambda m, x: x.permute(0, 2, 3, 1).contiguous(),
    "permute tuple": lambda m, x: torch.permute(x, (0, 3, 1, 2)),
    "transpose": lambda m, x: x.flatten(2).transpose(1, -1),
    "mT": lambda m, x: x.mT,
    "slice": lambda m, x: x[:, 1:7:2, ::2, -3:],
    "ellipsis": lambda m, x: x[..., 2:],
    "index and None": lambda m, x: x[:, 3, None, :, -1],
    "narrow": lambda m, x: x.narrow(1, 2, 3),
    "select": lambda m, x: torch.select(x, 2, -1),
    "chunk": lambda m, x: x.chunk(3, 1)[0] * x.chunk(3, 1)[1],
    "chunk summed": lambda m, x: sum(x.chunk(2, dim=1)[i] * (i + 1) for i in range(2)),
    "split": lambda m, x: torch.cat(torch.split(x, [3, 5], dim=1)[::-1], 1),
    "split size": lambda m, x: torch.cat([part.relu() for part in [x.split(3, 1)[i] for i in range(3)]], 1),
    "unbind": lambda m, x: x.unbind(2)[3],
    "stack": lambda m, x: torch.stack([x, x.relu()], dim=1).flatten(1, 2),
    "pad": lambda m, x: F.pad(x, (1, 2, 0, 1), value=0.5),
    "pad channels": lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0),
    "pad negative": lambda m, x: F.pad(x, (-1, 2, -2, -1)),
    "roll": lambda m, x: torch.roll(x, shifts=(-2, 3), dims=(2, 3)),
    "pixel shuffle": lambda m, x: F.pixel_shuffle(x, 2),
    "channel shuffle": lambda m, x: torch.channel_shuffle(x, 4),
    "scalar": lambda m, x: 2 * x / 3 - 1 + (1 - x),
    "alpha": lambda m, x: torch.add(x, x.relu(), alpha=2),
    "neg, square": lambda m, x: -x + x**2 + torch.square(x),
    "rdiv": lambda m, x: 1 / (x**2 + 1.0),
    "mean": lambda m, x: x.mean([2, 3]),
    "mean keepdim": lambda m, x: x - torch.mean(x, dim=-1, keepdim=True),
    "sum": lambda m, x: x.sum((2, 3)),
    "amax": lambda m, x: x.amax((2, 3)),
    "max pool": lambda m, x: F.max_pool2d(x, 3, 2, 1),
    "avg pool": lambda m, x: F.avg_pool2d(x, x.size()[3]),
    "avg pool ceil": lambda m, x: F.avg_pool2d(x, 3, 2, ceil_mode=True, count_include_pad=False),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, (3, 2)) + F.adaptive_max_pool2d(x, (3, 2)),
    "interpolate": lambda m, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, (16, 16), mode="bilinear"),
    "interpolate like": lambda m, x: F.interpolate(F.avg_pool2d(x, 2), size=x.shape[2:], mode="nearest"),
    "activations": lambda m, x: F.silu(F.gelu(F.leaky_relu(F.elu(x), 0.1), approximate="tanh")),
    "more activations": lambda m, x: F.mish(F.softplus(F.hardswish(F.hardsigmoid(F.hardtanh(x, -2, 2))))),
    "methods": lambda m, x: x.relu() + x.sigmoid() * x.tanh() + torch.clamp(x, 0, 6) + x.clamp(min=0),
    "relu6": lambda m, x: F.relu6(x * 5),
    "softmax": lambda m, x: F.softmax(x, dim=1) + x.softmax(-1),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "in place": lambda m, x: F.relu(x, inplace=True) + x,
    "in place method": lambda m, x: x.relu_().mul_(2) * x,
    "gate expanded": lambda m, x: x * torch.sigmoid(x.mean((2, 3))).view(x.size(0), 8, 1, 1).expand_as(x),
    "expand": lambda m, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4),
    "attention": lambda m, x: F.scaled_dot_product_attention(x, x, x.relu()),
    "matmul": lambda m, x: torch.matmul(x, x.transpose(-2, -1)) @ x,
    "constant tensor": lambda m, x: x + torch.arange(8.0).view(1, 8, 1, 1),
    "new zeros": lambda m, x: torch.cat([x.new_zeros(x.shape[0], 1, 8, 8), x, torch.ones_like(x)], dim=1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_methods(name: str) -> None:
    _check(Lambda(FUNCTIONS[name]))


LAYER_MODULES: dict[str, nn.Module] = {
    "conv same": nn.Conv2d(8, 6, 3, padding="same", dilation=2),
    "conv same, even kernel": nn.Conv2d(8, 6, (2, 4), padding="same"),
    "conv valid": nn.Conv2d(8, 6, 3, padding="valid"),
    "transposed": nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2),
    "norm without affine": nn.BatchNorm2d(8, affine=False),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "group norm": nn.GroupNorm(2, 8, affine=False),
    "layer norm": nn.LayerNorm((8, 8), elementwise_affine=False),
    "layer norm without bias": nn.LayerNorm(8, bias=False),
    "softmax": nn.Softmax(dim=-3),
    "softmax2d": nn.Softmax2d(),
    "upsample": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "upsampling nearest": nn.UpsamplingNearest2d(size=(5, 7)),
    "upsampling bilinear": nn.UpsamplingBilinear2d(scale_factor=2),
    "padding": nn.ZeroPad2d((1, 0, 2, 1)),
    "constant padding": nn.ConstantPad2d(1, 2.0),
    "pixel shuffle": nn.PixelShuffle(2),
    "channel shuffle": nn.ChannelShuffle(2),
    "prelu": nn.PReLU(8),
    "norm of vectors": nn.Sequential(nn.Flatten(), nn.Linear(512, 5), nn.BatchNorm1d(5), nn.Unflatten(1, (5, 1))),
    "dropout, identity": nn.Sequential(nn.Dropout2d(), nn.Identity(), nn.ReLU(inplace=True)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYER_MODULES)
def test_layers(name: str) -> None:
    _check(nn.Sequential(nn.Conv2d(4, 8, 1), LAYER_MODULES[name]))


class Attention(nn.Module):
    """A small vision transformer with class token, position embedding and layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(4, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.norm, self.gamma = nn.LayerNorm(8), nn.Parameter(torch.rand(8))
        self.qkv, self.proj, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-2, -1) * (c // 2) ** -0.5).softmax(dim=-1)
        x = x + self.gamma * self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))
        return self.head(x[:, 0])


def test_a_vision_transformer() -> None:
    network = _check(Attention())
    layers = network.layers()
    assert type(layers["gamma"]) is Constant
    assert type(layers["position"]) is Constant
    assert type(layers["qkv"]) is nn.Linear
    assert any(type(layer) is Pad for layer in layers.values())


class Standardised(nn.Conv2d):
    """A subclass that computes something else than its base class."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def test_a_subclass_is_converted_by_what_it_computes() -> None:
    module = Standardised(4, 5, 3, 2, 1)
    layer = next(iter(_check(nn.Sequential(module, nn.ReLU())).layers().values()))
    assert type(layer) is nn.Conv2d
    assert not torch.equal(layer.weight, module.weight)


def test_functions_with_weights_are_layers_named_after_their_owner() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight, self.bias)

    network = _check(nn.Sequential(nn.Conv2d(4, 8, 1), Owner()))
    assert type(network.layers()["1"]) is nn.Linear
    product = _check(Lambda(lambda m, x: x.mT @ m.matrix, matrix=nn.Parameter(torch.randn(8, 3))))
    assert type(list(product.layers().values())[-1]) is nn.Linear


def test_names_stay_and_views_are_reshapes() -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), nn.Flatten(), nn.Linear(216, 3))
    network = _check(module)
    assert list(network.layers()) == ["0.0", "0.1", "1", "2"]
    assert isinstance(network.layers()["1"], Reshape)
    assert network.module.state_dict().keys() == module.state_dict().keys()
    kinds = {type(layer) for layer in _check(Lambda(FUNCTIONS["pad channels"])).layers().values()}
    assert kinds == {nn.Conv2d, Slice, Pad}


def test_gates_are_broadcast_not_expanded() -> None:
    kinds = [type(layer) for layer in _check(Lambda(FUNCTIONS["gate expanded"])).layers().values()]
    assert kinds == [nn.Conv2d, Mean, nn.Sigmoid, Reshape, Mul]


def test_the_original_stays_as_it_was_and_shares_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5))
    module.train()
    before = copy.deepcopy(module.state_dict())
    network = trace(module, IMAGE)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    for tensor in network.module.state_dict().values():
        tensor.fill_(0)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(layer.training for layer in network.module.modules())


def test_a_single_layer_is_a_network() -> None:
    assert list(_check(nn.Conv2d(4, 3, 1)).layers()) == ["conv2d"]


def test_optional_arguments_have_their_defaults() -> None:
    class Optional(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x * 2 if mask is None else x * mask

    _check(Optional())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_many_kinds(name: str) -> None:
    _check(NETWORKS[name](), input_shape(name))


def test_equal_modules_give_equal_networks() -> None:
    module = Attention()
    assert trace(module, IMAGE).fingerprint() == trace(module, IMAGE).fingerprint()


def _twice(m: Lambda, x: Tensor) -> Tensor:
    return m.layer(m.layer(x))


def _branching(m: Lambda, x: Tensor) -> Tensor:
    return x.relu() if x.mean() > 0 else x


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.relu()


def _tied() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    module[1].weight = module[0].weight
    return module


def _poisoned() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(4, 4, 3))
    nn.init.constant_(module[0].bias, float("nan"))
    return module


def _hooked() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    module[1].register_forward_hook(lambda layer, args, output: output * 2)
    return module


REFUSED: dict[str, tuple[Callable[[], nn.Module], type[ModelError], str]] = {
    "shared layer": (lambda: Lambda(_twice, layer=nn.Conv2d(8, 8, 1)), ModelError, r"'layer' shares its weights"),
    "tied weights": (_tied, ModelError, "'1' shares its weights with '0'"),
    "branch on values": (lambda: Lambda(_branching), UnsupportedOperatorError, "control flow"),
    "loop over values": (lambda: Lambda(lambda m, x: sum(list(x))), UnsupportedOperatorError, "control flow"),
    "unknown layer": (
        lambda: nn.Sequential(nn.Flatten(2), nn.LSTM(64, 5)), UnsupportedOperatorError, "node '1': layer type LSTM"
    ),
    "unknown function": (lambda: Lambda(lambda m, x: torch.fft.fft(x)), UnsupportedOperatorError, "fft"),
    "unknown method": (lambda: Lambda(lambda m, x: x.cumsum(1)), UnsupportedOperatorError, "operator 'cumsum'"),
    "log softmax": (lambda: Lambda(lambda m, x: F.log_softmax(x, 1)), UnsupportedOperatorError, "returns logits"),
    "argmax": (lambda: Lambda(lambda m, x: x.argmax(1)), UnsupportedOperatorError, "argmax"),
    "mean of all": (lambda: Lambda(lambda m, x: x - x.mean()), UnsupportedOperatorError, "'mean'"),
    "mean of batch": (lambda: Lambda(lambda m, x: x.mean(0, keepdim=True)), UnsupportedOperatorError, "'mean'"),
    "batch index": (lambda: Lambda(lambda m, x: x[1:]), UnsupportedOperatorError, "getitem"),
    "batch size as number": (lambda: Lambda(lambda m, x: x * x.shape[0]), UnsupportedOperatorError, "batch"),
    "reflection": (lambda: Lambda(lambda m, x: F.pad(x, (1, 1, 1, 1), "reflect")), UnsupportedOperatorError, "reflect"),
    "reflecting conv": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), UnsupportedOperatorError,
        "padding_mode",
    ),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))), UnsupportedOperatorError,
        "node '0': layer type Parametrized",
    ),
    "no statistics": (
        lambda: nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)), UnsupportedOperatorError, "running stat"
    ),
    "hook that computes": (_hooked, ModelError, "differs"),
    "random numbers": (Noise, ModelError, "rand_like"),
    "two outputs": (Pair, ModelError, "returns one tensor"),
    "image size": (lambda: nn.Sequential(nn.Conv2d(7, 4, 3)), ModelError, "does not run on images of shape"),
    "needs arguments": (lambda: nn.Bilinear(4, 4, 4), ModelError, "Bilinear|cannot be traced|does not run"),
    "NaN": (_poisoned, ModelError, "'0.bias' has values that are not finite"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), ModelError, "lazy"),
    "constant output": (lambda: Lambda(lambda m, x: torch.ones(3)), ModelError, "does not depend on the image"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(name: str) -> None:
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        trace(make(), IMAGE)
    assert "\n" not in str(caught.value)


def test_tracing_is_fast() -> None:
    layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(50)]
    start = time.perf_counter()
    network = trace(nn.Sequential(nn.Conv2d(4, 8, 1), *layers), IMAGE)
    assert time.perf_counter() - start < 5
    assert len(network.layers()) == 151
    assert not any(isinstance(layer, Add) for layer in network.layers().values())
