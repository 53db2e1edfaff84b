"""What a job is asked to do. The command line and REST fill in the same values."""

import importlib
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from autoprune.criteria.catalog import OBS, criterion_names, find_criterion
from autoprune.errors import UnknownNameError
from autoprune.service.specs.amc_options import AmcOptions
from autoprune.service.specs.finetune_options import FinetuneOptions
from autoprune.service.specs.front_options import NSGA2, FrontOptions
from autoprune.service.specs.pruningnet_options import PruningNetOptions
from autoprune.service.specs.reading import read_as

_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Images = Annotated[int, Field(ge=1, le=10_000_000)]


def _check_input_shape(value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    """Refuse sizes that no image has."""
    if value is not None and not all(1 <= size <= 4096 for size in value):
        raise PydanticCustomError("input_shape", "expected (channels, height, width), each from 1 to 4096")
    return value


#: The size of an image, (C, H, W).
InputShape = Annotated[tuple[int, int, int] | None, AfterValidator(_check_input_shape)]

EXAMPLE_MODEL_ID = "mdl_2c26b46b68ffc68ff99b453c"
EXAMPLE_DATASET_ID = "dat_fcde2b2edba56bf408601fb7"


class JobSpec(BaseModel):
    """One job: a model, data, a hard budget, and which policies compete for it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {"model": EXAMPLE_MODEL_ID, "dataset": "digits", "budget": "macs=50%"},
                {
                    "model": EXAMPLE_MODEL_ID,
                    "dataset": EXAMPLE_DATASET_ID,
                    "budget": "macs=50%,params=60%",
                    "policies": ["uniform", "random", "sensitivity", "exact"],
                    "evaluations": 200,
                    "criterion": "l2",
                    "finetune_epochs": 10,
                    "finetune": {"learning_rate": 0.005, "batch_size": 128},
                },
            ]
        },
    )

    model: _Text = Field(
        description="REST: the id of an uploaded model. Command line: a path, .onnx or .safetensors.",
        examples=[EXAMPLE_MODEL_ID, "resnet56.onnx"],
    )
    architecture: _Text | None = Field(
        default=None,
        description="Zoo architecture whose weights the model file (safetensors) holds; known already for an "
        "uploaded model.",
        examples=["resnet56_cifar"],
    )
    num_classes: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Classes of the zoo architecture; None for its default."
    )
    input_shape: InputShape = Field(
        default=None,
        strict=False,
        description="One image, (C, H, W), where an ONNX file leaves it open or a zoo architecture is to have another.",
        examples=[[3, 32, 32]],
    )
    dataset: _Text = Field(
        description="'digits' (built in). REST: or the id of an uploaded dataset. Command line: or a folder, zip, npz.",
        examples=["digits", EXAMPLE_DATASET_ID],
    )
    report_dataset: _Text | None = Field(
        default=None,
        description="Images for the report alone, named like `dataset`; None: a split of `dataset`.",
        examples=[EXAMPLE_DATASET_ID],
    )
    budget: _Text = Field(
        description="Hard limits: quantity=amount, joined by commas; quantities are macs, params, bytes and, on a "
        "device with a latency table, latency.",
        examples=["macs=50%", "macs=40%,params=100k", "bytes=1MB", "latency=12ms"],
    )
    device: _Text | None = Field(
        default=None,
        description="Device whose latency table prices candidates; needed for a budget of latency. Command line: or "
        "the table's file.",
        examples=["pixel-7"],
    )
    policies: tuple[_Text, ...] = Field(
        default=("uniform", "sensitivity", "exact"),
        strict=False,
        min_length=1,
        max_length=32,
        description="Who proposes the ratios; all of them get the same number of evaluations.",
        examples=[["uniform", "random", "sensitivity", "exact"]],
    )
    evaluations: int = Field(
        default=100, ge=1, le=1_000_000, description="Candidates that each policy may have evaluated."
    )
    warm_start: bool = Field(
        default=False,
        description="Let policies other than exact and the baselines (uniform, random) try the exact allocation first; "
        "counts as one of their evaluations.",
    )
    continue_from: _Text | None = Field(
        default=None,
        description="Go on from an earlier job with the same model, images and seed: nothing that it evaluated is "
        "evaluated again, and its best policies, brought to this budget, are tried first by all but the baselines. "
        "Command line: its folder. REST: its id.",
        examples=[None],
    )
    screening_images: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Score proposals on so many search images first, only the best quarter on all; None: all on all.",
    )
    short_term_steps: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Training steps that netadapt gives every proposal before it is scored, as in its paper; 0: "
        "proposals are reconstructed only, like those of all other policies.",
    )
    netadapt_rule: Literal["official", "paper"] = Field(
        default="official",
        description="Which proposal netadapt takes: the least accuracy lost per resource saved (official), or the "
        "highest accuracy (paper).",
    )
    front: FrontOptions | None = Field(
        default=None,
        description="Let policy nsga2 look for a whole Pareto front of score against one cost, and export its plans; "
        "None: for the one best plan within the budget, as all other policies.",
        examples=[{"least": "macs=30%"}],
    )
    amc: AmcOptions = Field(default_factory=AmcOptions, description="How policy amc searches.")
    pruningnet: PruningNetOptions = Field(
        default_factory=PruningNetOptions, description="What policy metapruning searches with."
    )
    criterion: str = Field(
        default=OBS,
        description="How the channels of a group are ranked: by the error they leave after reconstruction (obs), or "
        "by the scores of another criterion; `autoprune criteria` lists them.",
        json_schema_extra={"enum": list(criterion_names("channel"))},
    )
    reconstruction: bool = Field(
        default=True, description="Solve the layers behind pruned groups for the best weights on what they keep."
    )
    refit: bool = Field(
        default=True,
        description="Solve all layers of each winner once more, in order; kept where the search images are better off.",
    )
    round_to: int = Field(default=1, ge=1, le=1024, description="Kept channels are multiples of this number.")
    max_ratio: float = Field(default=0.9, gt=0, lt=1, description="Largest fraction of a group that may be removed.")
    include_residual: bool = Field(default=False, description="Also prune residual streams.")
    fit_images: _Images | None = Field(
        default=None, description="Images for statistics and fine-tuning; None: 70% of them."
    )
    search_images: _Images | None = Field(
        default=None, description="Images that candidates are scored on; None: 15%, bounded."
    )
    report_images: _Images | None = Field(
        default=None, description="Images for the final figures; None: 15%, or all of theirs."
    )
    normalization: _Text | None = Field(
        default=None,
        description="'imagenet', 'digits', 'none' or 'means/stds'; None: what fits the dataset.",
        examples=["imagenet", "0.5,0.5,0.5/0.25,0.25,0.25"],
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Of evaluations and fine-tuning; auto takes bf16 where the processor is faster with it.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of everything random; equal seeds, equal results.")
    finetune_epochs: int = Field(
        default=0, ge=0, le=10_000, description="Epochs that each winner is trained; 0 for none."
    )
    finetune: FinetuneOptions = Field(default=FinetuneOptions(), description="How winners are trained.")
    int8: bool = Field(
        default=False,
        description="Also export every winner in int8, calibrated on fit images. A budget of latency then speaks of "
        "the int8 files, and the device's table is one of int8.",
    )
    opset: int = Field(default=18, ge=13, le=20, description="Operator set of the exported ONNX files.")
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads of the job, and of each worker.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Processes that evaluate candidates, with the same results for any number; None: one per core "
        "where the search is long enough to repay their start.",
    )

    @field_validator("criterion")
    @classmethod
    def _check_criterion(cls, value: str) -> str:
        """Refuse unknown criteria."""
        try:
            return find_criterion(value, "channel").name
        except UnknownNameError as error:
            raise PydanticCustomError("criterion", "{reason}", {"reason": str(error)}) from error

    @model_validator(mode="after")
    def _check_requirements(self) -> Self:
        """Refuse settings that contradict each other; the type of the error is the field to blame."""
        for name, asked in (
            ("criterion 'obs'", self.criterion == OBS),
            ("policy 'exact'", "exact" in self.policies),
            ("a warm start", self.warm_start),
        ):
            if asked and not self.reconstruction:
                raise PydanticCustomError(
                    "reconstruction", "{name} needs reconstruction; turn it on or choose another", {"name": name}
                )
        if self.front is not None and NSGA2 not in self.policies:
            raise PydanticCustomError("front", "a front is what policy 'nsga2' looks for; name it in policies")
        if self.amc.experience and self.policies[0] == "amc":
            raise PydanticCustomError(
                "amc", "experience for policy 'amc' needs a policy before it; name 'amc' later in policies"
            )
        return self

    @field_validator("policies")
    @classmethod
    def _check_policies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse unknown policies, and the same one twice."""
        if len(set(value)) != len(value):
            raise PydanticCustomError("policies", "expected each policy once")
        known = importlib.import_module("autoprune.search.policies").POLICIES  # imports torch: not for reading a spec
        for name in value:
            if "," in name:
                raise PydanticCustomError(
                    "policies", "expected one policy each time: on the command line --policy uniform --policy exact"
                )
            if name not in known:
                raise PydanticCustomError(
                    "policies", "{reason}", {"reason": str(UnknownNameError("policy", name, known))}
                )
        return value


#: A kind of spec.
Spec = TypeVar("Spec", bound=JobSpec)


def read_spec(values: Mapping[str, object]) -> JobSpec:
    """Return the spec with these settings; see :func:`autoprune.service.specs.reading.read_as`."""
    return read_as(JobSpec, values)
