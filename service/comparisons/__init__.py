"""Comparisons: several policies over several seeds on one problem, at the same number of evaluations."""
