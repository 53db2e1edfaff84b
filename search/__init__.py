"""Policies: who proposes the next ratios, the driver that owns the loop, and the journal that remembers."""
