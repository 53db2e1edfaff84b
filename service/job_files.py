"""Files in a job's folder that later jobs and questions go back to. Needs no torch."""

#: Every evaluation ever made.
JOURNAL = "journal.sqlite"

#: What the searches found out, :class:`autoprune.search.evidence.Evidence`.
EVIDENCE = "evidence.safetensors"
