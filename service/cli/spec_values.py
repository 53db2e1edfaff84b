"""What the parameters of a command say in the settings of a :class:`JobSpec`."""

from collections.abc import Mapping
from pathlib import Path

from autoprune.service.cli.errors import CommandError

#: Options that become fields of FinetuneOptions.
FINETUNE_FIELDS = (
    "optimizer", "learning_rate", "weight_decay", "momentum", "batch_size", "label_smoothing", "distillation",
    "temperature", "hints", "freeze_batchnorm", "augment", "flip",
)  # fmt: skip
#: Options that become fields of AmcOptions, FrontOptions and PruningNetOptions, there without this; those left out
#: (None) have the defaults of these.
PREFIXES = ("amc_", "front_", "pruningnet_")
_NOT_IN_SPEC = ("weights", "output", "cluster", "as_json", "url", "wait")


def spec_values(params: Mapping[str, object]) -> dict[str, object]:
    """Turn a command's parameters into the settings of a :class:`JobSpec`.

    Raises:
        CommandError: Parameters that contradict each other, or an input shape that is none.

    """
    others = (*_NOT_IN_SPEC, *FINETUNE_FIELDS)
    values = {name: value for name, value in params.items() if name not in others and not name.startswith(PREFIXES)}
    weights, model = params.get("weights"), params["model"]
    if weights is not None:
        if params.get("architecture") is not None or Path(str(model)).suffix:
            raise CommandError(
                f"--weights belongs to the name of a zoo architecture, found MODEL {str(model)!r}; "
                "write either NAME --weights FILE or FILE --arch NAME"
            )
        values |= {"model": str(weights), "architecture": model}
    values["input_shape"] = parse_input_shape(params.get("input_shape"))
    tuning = {name: params[name] for name in FINETUNE_FIELDS if name in params}
    if tuning:
        values["finetune"] = tuning
    for prefix in PREFIXES:
        own = {
            name.removeprefix(prefix): str(value) if isinstance(value, Path) else value
            for name, value in params.items()
            if name.startswith(prefix) and value is not None
        }
        if own:
            values[prefix.removesuffix("_")] = own
    return values


def parse_input_shape(text: object) -> tuple[int, ...] | None:
    """Read ``3,32,32`` or ``3x32x32``; None stays None.

    Raises:
        CommandError: Not whole numbers.

    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in str(text).lower().replace("x", ",").split(","))
    except ValueError:
        raise CommandError(f"--input-shape: expected channels,height,width as in 3,32,32; found {text!r}") from None
