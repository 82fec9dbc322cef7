"""A fleet as a problem: what is asked for, what may be had, when, and what must be kept."""
