"""What people type into pages. A form takes its own fields and nothing else."""
