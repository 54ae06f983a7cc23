"""Where a version trains: this machine, servers over ssh, Slurm, through the same calls."""
