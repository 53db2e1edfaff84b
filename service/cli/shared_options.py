"""Options that commands take from one another."""

import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from autoprune.service.cli.spec_values import FINETUNE_FIELDS

#: Options of all that train a network: what is trained, on which images, and how.
TRAINING = (
    "ctx", "model", "weights", "architecture", "num_classes", "input_shape", "dataset", "report_dataset", "fit_images",
    "search_images", "report_images", "normalization", "seed", "finetune_epochs", *FINETUNE_FIELDS, "output", "opset",
    "threads", "as_json",
)  # fmt: skip

_Command = TypeVar("_Command", bound=Callable[..., None])


def options_of(
    command: Callable[..., None],
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    **more: tuple[object, object],
) -> Callable[[_Command], _Command]:
    """Give a command the options of another one, and `more`, or others, by name.

    Args:
        command: The other one.
        only: Names of those that are taken; None: all.
        without: Names of those that are not.
        more: What each is, and its default; ``...`` where it has to be given.

    """

    def decorate(function: _Command) -> _Command:
        parameters = inspect.signature(command).parameters
        taken = [name for name in parameters if (only is None or name in only) and name not in without]
        options = {name: parameters[name] for name in taken}
        for name, (annotation, default) in more.items():
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            options[name] = inspect.Parameter(name, kind, annotation=annotation, default=default)
        described: Any = function
        described.__signature__ = inspect.Signature(list(options.values()))  # what typer reads
        return function

    return decorate
