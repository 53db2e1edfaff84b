"""Single weights pruned in rounds of training and pruning, with or without rewinding: lottery tickets.

With rewinding (Frankle & Carbin 2019, 1803.03635; to a later step, Frankle et al. 2020, 1912.05671) the network is
trained, pruned, put back to the weights it had at an early step, and trained again from there, round by round. Without,
every round goes on from the weights of the one before (Han et al. 2015, 1506.02626).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.formats.checkpoint_file import key_of
from autoprune.network.device import default_device
from autoprune.network.masked import masked
from autoprune.network.network import Network, own_copy
from autoprune.recovery.finetune import Penalty, Progress, finetune
from autoprune.training._round_files import RoundFiles, RoundState
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.layer_collapse import check_collapse
from autoprune.training.masks import MaskKeeper, Masks, full_masks, smaller_masks
from autoprune.training.weight_scores import WeightScore, magnitude

#: Raised whenever the same settings would give other weights: files of rounds are then not used.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Round:
    """What one round left.

    Attributes:
        masks: Which weights stayed.
        network: The trained network; the weights that are gone are zero.
        losses: Mean loss of every epoch of its training.

    """

    masks: Masks
    network: Network
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ticket:
    """What pruning in rounds found.

    Attributes:
        start: The whole network at the step that weights were put back to; the given one without rewinding.
        rounds: What each round left; with rewinding, the first one is the training of the whole network.

    """

    start: Network
    rounds: tuple[Round, ...]

    @property
    def masks(self) -> Masks:
        """Which weights stay in the end."""
        return self.rounds[-1].masks

    @property
    def trained(self) -> Network:
        """The trained network with the weights that stay in the end."""
        return self.rounds[-1].network


def prune_in_rounds(
    network: Network,
    inputs: Tensor,
    labels: Tensor | None,
    settings: IterativeSettings,
    *,
    score: WeightScore = magnitude,
    teacher: Network | None = None,
    penalty: Penalty | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> Ticket:
    """Prune the weights of `network` in rounds.

    On a CPU the result depends on the arguments (but not `folder`) and the number of threads alone, bit for bit, also
    where a run was killed and goes on. Weights that are zero in `network` count as gone.

    Args:
        network: Untrained with rewinding, trained without; not changed.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised.
        labels: Their classes, ``(n,)`` int64, or None to learn from the teacher alone.
        settings: How to train, and how much to keep.
        score: Ranks weights after each training; those of the lowest scores go.
        teacher: As in :func:`autoprune.recovery.finetune.finetune`.
        penalty: Likewise, for example :class:`autoprune.training.penalties.WeightL1`.
        folder: Where each round that is done is kept, below it in a folder for each choice of arguments; the same call
            goes on behind the last one. Functions are told apart by their names: give another folder to another one
            of the same name. None for nowhere.
        progress: Called after each step of all rounds; what it raises ends the run.
        precision: As in fine-tuning.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Images and labels that cannot be trained on.
        SearchError: A step to rewind to that training does not reach.
        PlanError: A layer would collapse, or scores that do not fit the network.
        NumericalError: A training diverged.

    """
    settings.check_images(len(inputs))
    device = device or default_device()
    lesson = _Lesson(inputs, labels, settings, teacher, penalty, progress, precision, device)
    facts = {
        "version": VERSION,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "network": network.fingerprint(),
        "inputs": inputs,
        "labels": labels,
        "settings": asdict(settings),
        "score": score,
        "teacher": None if teacher is None else teacher.fingerprint(),
        "penalty": penalty,
        "precision": precision,
    }
    files = None if folder is None else RoundFiles(folder, key_of(facts))
    start = latest = network
    masks: Masks = full_masks(network)
    rounds: list[Round] = []
    for number, share in enumerate((None, *settings.shares) if settings.rewinds else settings.shares):
        state = None if files is None else files.read(number, network)
        if state is None:
            if share is not None:
                masks = smaller_masks(masks, score(latest), share, settings.scope)
            check_collapse(network, masks)
            state = lesson.round(number, start if settings.rewinds else latest, masks)
            if files is not None:
                files.write(number, state)
        if state.start:
            start = _with_state(network, state.start)
        masks, latest = state.masks, _with_state(network, state.trained)
        rounds.append(Round(masks, latest, state.losses))
    return Ticket(start, tuple(rounds))


@dataclass(frozen=True, slots=True)
class _Lesson:
    """All that the trainings of one pruning have in common."""

    inputs: Tensor
    labels: Tensor | None
    settings: IterativeSettings
    teacher: Network | None
    penalty: Penalty | None
    progress: Progress | None
    precision: str
    device: torch.device

    def round(self, number: int, begin: Network, masks: Masks) -> RoundState:
        """Train what `masks` keep of `begin`; the first training with rewinding remembers the step to go back to."""
        settings, rewind_step = self.settings, self.settings.rewind_step or 0
        whole = settings.rewinds and number == 0
        keeper, memory = MaskKeeper(masks), _Memory(rewind_step if whole else 0)

        def after_step(module: nn.Module, done: int) -> None:
            keeper(module, done)
            memory(module, done)

        trained, history = finetune(
            masked(begin, masks).module,
            self.inputs,
            self.labels,
            replace(settings.training, seed=settings.training.seed + number),
            teacher=None if self.teacher is None else self.teacher.module,
            penalty=self.penalty,
            after_step=after_step,
            first_step=0 if whole else rewind_step,
            progress=self._progress(number),
            precision=self.precision,
            device=self.device,
        )
        return RoundState(masks, _state_of(trained), memory.state, tuple(epoch.loss for epoch in history))

    def _progress(self, number: int) -> Progress | None:
        """Return what tells how far the training of a round is, among all rounds."""
        if self.progress is None:
            return None
        tell, rounds = self.progress, len(self.settings.shares)
        name = number if self.settings.rewinds else number + 1
        trainings = rounds + self.settings.rewinds

        def progress(done: int, total: int, text: str) -> None:
            tell(number * total + done, trainings * total, f"round {name} of {rounds}, {text}")

        return progress


class _Memory:
    """Remembers parameters and buffers at a step of a training, counted from 1; nothing at step 0.

    Attributes:
        state: By name; empty until then.

    """

    def __init__(self, step: int) -> None:
        self._step = step
        self.state: Mapping[str, Tensor] = {}

    def __call__(self, module: nn.Module, done: int) -> None:
        """Look at a network in training after a step."""
        if done == self._step:
            self.state = _state_of(module)


def _state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers, on the CPU."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}


def _with_state(network: Network, state: Mapping[str, Tensor]) -> Network:
    """Return a copy of `network` with other parameters and buffers."""
    module = network.with_layers({name: own_copy(layer) for name, layer in network.layers().items()})
    module.load_state_dict(state)
    return Network(module, network.input_shape, network.shapes)
