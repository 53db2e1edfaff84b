"""What the layers behind a pruned group can make good: Gram statistics, least squares, channel order, refit."""
