"""Alembic's environment of the records: one revision after another, from the first tables to those of today."""
