"""The hypernetwork of one layer: from the widths around it to its weights."""

import torch.nn.functional as F
from torch import Size, Tensor, nn


class WeightPredictor(nn.Module):
    """Predicts a layer's whole weight tensor: encoding -> Linear(k, hidden) -> ReLU -> Linear(hidden, |W|).

    With trained weights the prediction is a correction, in units of their root mean square, that starts at zero.

    Attributes:
        trained: The weights that are corrected, or None.
        scale: Unit of the prediction.

    """

    trained: Tensor | None

    def __init__(self, inputs: int, hidden: int, shape: Size, trained: Tensor | None, scale: float) -> None:
        """Draw the first layer from torch's random state; the last layer too, unless it starts at zero.

        Args:
            inputs: Length of the encoding.
            hidden: Units of the hidden layer.
            shape: Of the weights.
            trained: Weights that are corrected, `shape`; None to predict them whole.
            scale: Unit of the prediction.

        """
        super().__init__()
        self._shape, self.scale = shape, scale
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, shape.numel())
        self.register_buffer("trained", None if trained is None else trained.detach().clone(), persistent=False)
        if trained is not None:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, encoding: Tensor) -> Tensor:
        """Return the weights for an `encoding`, ``(inputs,)``."""
        predicted: Tensor = self.scale * self.last(F.relu(self.first(encoding))).view(self._shape)
        return predicted if self.trained is None else self.trained + predicted
