"""Criteria: how important every channel, or every single weight, of a network is. Higher scores stay."""
