"""Autoscaling rules side by side in the exact simulator: SLO attainment against replica-hours."""
