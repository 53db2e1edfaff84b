"""Who runs jobs: the runner and its worker processes."""
