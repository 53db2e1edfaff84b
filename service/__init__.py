"""autoprune.service."""
