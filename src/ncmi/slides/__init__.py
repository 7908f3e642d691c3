"""From slides to features, and simulated cohorts: what has no counterpart for tables and images."""
