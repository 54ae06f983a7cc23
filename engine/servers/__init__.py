"""Where a version trains: this machine now, SSH boxes and Slurm through the same calls."""
