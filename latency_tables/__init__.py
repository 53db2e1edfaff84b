"""autoprune.latency_tables."""
