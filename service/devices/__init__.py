"""Devices that latency is measured on: their tables, kits and work."""
