"""What a replica sustains within its SLO: found by trying rates in the exact simulator."""
