"""Pages of keys, teams, one's own account and the audit."""
