"""Training a pruned network back to accuracy."""
