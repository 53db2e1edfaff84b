"""autoprune.search."""
