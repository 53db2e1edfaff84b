"""Names of devices: people choose them, and files and URLs are named after them."""

import re

from autoprune.errors import LatencyTableError

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


def check_device(name: object) -> str:
    """Return the name of a device if it is one.

    Raises:
        LatencyTableError: It is not: such names become file names, so paths and odd letters are none; and where a
            name is asked for, ``.json`` at the end means a file.

    """
    if not isinstance(name, str) or not _DEVICE.fullmatch(name) or ".." in name or name.endswith(".json"):
        shown = name[:100] if isinstance(name, str) else name
        raise LatencyTableError(
            "a device's name is up to 48 letters, digits, '.', '_' and '-' that begin with a letter or digit and do "
            f"not end in .json, such as raspberry-pi-5; found {shown!r}"
        )
    return name


def device_name(text: str) -> str:
    """Return a device's name made of any text, such as that of a processor."""
    kept = re.sub(r"[^a-z0-9]+", "-", text.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
    return kept[:48].strip("-") or "device"
