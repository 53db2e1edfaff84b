"""What a pruned network costs, from its channel counts alone, and the budget it must keep."""
