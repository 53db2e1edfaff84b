"""Records and files that outlive a process: one database, one folder of uploads."""
