"""PostgreSQL as Django's database: pooled, and without a wait that never ends."""
