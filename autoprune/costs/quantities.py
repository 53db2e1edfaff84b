"""The names of costs, and how people read them."""

#: Quantities that follow from channel counts alone.
QUANTITIES = ("macs", "params", "bytes")

#: Time of one inference; it needs a latency table of the device. Whole nanoseconds, shown as milliseconds.
LATENCY = "latency"

#: Parameters that are not zero: what counts where single weights are pruned and every layer keeps its shape.
NONZERO = "nonzero"

#: Everything that a budget can limit: channels by all but the last, single weights by that alone.
LIMITABLE = (*QUANTITIES, LATENCY, NONZERO)

NS_PER_MS = 1_000_000


def shown(quantity: str, value: float) -> str:
    """Return a cost as people read it: milliseconds, or a whole number with separators."""
    if quantity != LATENCY:
        return f"{value:,.10g}"
    return f"{value / NS_PER_MS:.4g} ms"
