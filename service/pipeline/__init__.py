"""The steps of one job: load, search, recover, export, certify."""
