"""AutoML pruning-ratio search: how much of every layer of a trained CNN to prune, within a hard budget."""
