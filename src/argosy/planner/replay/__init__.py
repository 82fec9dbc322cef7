"""A plan's hours in the exact simulator, request by request, and what that teaches the plan."""
