"""Files in a job's folder that later jobs and questions go back to. Needs no torch."""

#: Every evaluation ever made.
JOURNAL = "journal.sqlite"

#: What the searches found out, :class:`autoprune.search.evidence.Evidence`.
EVIDENCE = "evidence.safetensors"

#: The searches of Optuna's samplers, for Optuna's own tools; written anew whenever the job runs.
STUDIES = "studies.sqlite"

#: Every figure that a study has measured, one a line behind the first; hidden from the artifacts.
NOTEBOOK = ".measured.jsonl"
