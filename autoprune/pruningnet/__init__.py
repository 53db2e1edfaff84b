"""PruningNet: weights predicted for any widths, so that plans can be ranked without training each (MetaPruning)."""
