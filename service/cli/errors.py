"""What the commands refuse by themselves."""

from autoprune.errors import AutopruneError


class CommandError(AutopruneError):
    """A command was given something it cannot use."""
