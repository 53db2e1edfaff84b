"""Studies as jobs: what is measured, and the report, table and document that say so."""
