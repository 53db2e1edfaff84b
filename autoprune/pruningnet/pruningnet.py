"""The PruningNet of a problem: weights for any widths (Liu et al. 2019, 1903.10258, section 3.1)."""

import hashlib

import torch
from torch import Tensor, fx, nn

from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, own_copy
from autoprune.problem import PruningProblem
from autoprune.pruning.places import numbered
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.pruningnet.predictor import WeightPredictor
from autoprune.recovery.optimizer import size_of


class PruningNet(nn.Module):
    """Predicts the weights of every layer that a decision group cuts; holds all other parameters, shared by all widths.

    A layer's encoding is the share kept of each decision group among its outputs and inputs, in the order of the
    problem. From it a hypernetwork predicts the weights of the whole layer, and a candidate gets those that surgery
    keeps: the first k channels of each group in the order of the problem, where the plan says so.

    Attributes:
        problem: What is pruned.
        predicted: Names of the layers with predicted weights, in execution order.

    """

    def __init__(self, problem: PruningProblem, *, scratch: bool, hidden: int, seed: int) -> None:
        """Make an untrained PruningNet; the global random state is neither used nor changed.

        Args:
            problem: What is pruned.
            scratch: Predict whole weights, and start all other parameters anew; else start from the trained network.
            hidden: Units of the hidden layers.
            seed: Of what is drawn.

        """
        super().__init__()
        self.problem = problem
        touched = _touched(problem)
        self.predicted = tuple(touched)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = _reset(problem.network) if scratch else problem.network
            layers = network.layers()
            self._predictors = nn.ModuleList(
                _predictor(layers[name], len(groups), hidden, scratch=scratch) for name, groups in touched.items()
            )
        self._encodings = [list(groups) for groups in touched.values()]
        own = {f"{name}.weight" for name in touched}
        shared = {name: each for name, each in network.module.named_parameters() if name not in own}
        self._names = tuple(shared)
        self._shared = nn.ParameterList(nn.Parameter(each.detach().clone()) for each in shared.values())
        self._numbers = numbered(network)

    def encoding(self, plan: Plan) -> Tensor:
        """Return the share that `plan` keeps of each decision group, ``(n_groups,)``."""
        groups = self.problem.groups
        kept = [len(plan.kept[group.name]) if group.name in plan.kept else len(group) for group in groups]
        return torch.tensor([count / len(group) for count, group in zip(kept, groups, strict=True)])

    def whole(self, encoding: Tensor) -> dict[str, Tensor]:
        """Return all parameters of the network in the shapes of the unpruned one, by name.

        Args:
            encoding: Share kept of each decision group, ``(n_groups,)``.

        """
        encoding = encoding.to(next(self.parameters()).device)
        weights = {
            f"{name}.weight": predictor(encoding[groups])
            for name, predictor, groups in zip(self.predicted, self._predictors, self._encodings, strict=True)
        }
        return weights | dict(zip(self._names, self._shared, strict=True))

    def cropped(self, plan: Plan) -> tuple[fx.GraphModule, dict[str, Tensor]]:
        """Return the network that `plan` leaves, and its predicted parameters by name, through which gradients flow.

        The module's own parameters are places and have to be replaced (``torch.func.functional_call``); its batch norms
        have the statistics of the unpruned network.

        Raises:
            PlanError: The plan does not fit the network.

        """
        module = prune(self._numbers, self.problem.all_groups, plan)
        whole = self.whole(self.encoding(plan))
        cropped = {
            name: whole[name].flatten()[places.flatten().to(whole[name].device)].view(places.shape)
            for name, places in module.named_parameters()
        }
        return module, cropped

    def candidate(self, plan: Plan) -> fx.GraphModule:
        """Return the network that `plan` leaves with predicted weights, in eval mode, not yet recalibrated.

        Raises:
            PlanError: The plan does not fit the network.

        """
        with torch.no_grad():
            module, cropped = self.cropped(plan)
        for layer_name, layer in module.named_modules():
            for name, places in layer._parameters.items():
                if places is not None:
                    value = cropped[f"{layer_name}.{name}"]
                    layer._parameters[name] = nn.Parameter(value.clone())
        return module

    def sizes(self) -> list[tuple[nn.Parameter, float]]:
        """Return every trainable parameter with the size that changes of it are relative to.

        Predictions come in units of the weights' own size, so that of a hypernetwork is 1.
        """
        hyper = [(parameter, 1.0) for parameter in self._predictors.parameters()]
        return hyper + [(parameter, size_of(parameter)) for parameter in self._shared]

    def fingerprint(self) -> str:
        """Return the sha256 of all that predictions depend on besides the plan and the problem's network."""
        kinds = [(each.trained is None, each.scale) for each in self._predictors if isinstance(each, WeightPredictor)]
        digest = hashlib.sha256(repr((self.problem.names, self.predicted, self._encodings, kinds)).encode())
        for name, tensor in self.state_dict().items():
            digest.update(repr((name, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _touched(problem: PruningProblem) -> dict[str, tuple[int, ...]]:
    """Return the layers whose weights the decision groups cut, each with the numbers of those groups."""
    found: dict[str, set[int]] = {}
    for number, group in enumerate(problem.groups):
        for name in (*group.producers, *group.consumers):
            found.setdefault(name, set()).add(number)
    order = [name for name, layer in problem.network.layers().items() if isinstance(layer, PRODUCERS)]
    return {name: tuple(sorted(found[name])) for name in order if name in found}


def _predictor(layer: nn.Module, inputs: int, hidden: int, *, scratch: bool) -> WeightPredictor:
    """Return the hypernetwork of a layer."""
    assert isinstance(layer, PRODUCERS)
    weight = layer.weight.detach()
    trained, scale = (None, 1.0) if scratch else (weight, size_of(weight))
    return WeightPredictor(inputs, hidden, weight.shape, trained, scale)


def _reset(network: Network) -> Network:
    """Return `network` with parameters and statistics as before any training, drawn from torch's random state."""
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for layer in layers.values():
        reset = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
    return Network(network.with_layers(layers), network.input_shape, network.shapes)
