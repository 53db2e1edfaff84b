"""How winners are trained again."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FinetuneOptions(BaseModel):
    """How the winner of a search is trained again; only used where `finetune_epochs` is above 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    optimizer: Literal["sgd", "adamw", "relative-adamw"] = Field(
        default="relative-adamw",
        description="SGD with Nesterov momentum, AdamW, or AdamW with a rate relative to the size of every tensor.",
    )
    learning_rate: float = Field(
        default=0.003, gt=0, le=10, description="Peak learning rate; falls to 0 along a cosine."
    )
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="Weight decay; none on batch norm and biases.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD.")
    batch_size: int = Field(default=64, ge=2, le=65_536, description="Images per step.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    distillation: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Weight of the unpruned network's outputs against the labels; 1 without labels.",
    )
    temperature: float = Field(default=4.0, gt=0, le=100, description="Temperature of the distillation.")
    hints: float = Field(
        default=10.0,
        ge=0,
        le=10_000,
        description="Weight of the distance to the unpruned network at the ends of residual blocks; 0 for none.",
    )
    freeze_batchnorm: bool = Field(
        default=True, description="Keep the statistics of batch norms while training; best after a refit."
    )
    augment: bool = Field(default=True, description="Random crops of images of at least 16 pixels.")
    flip: bool = Field(default=True, description="Random mirroring as well; turn off where left and right matter.")
