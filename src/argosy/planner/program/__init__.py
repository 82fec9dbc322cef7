"""A problem as a mixed-integer program: its columns, its rows, the losses it has to survive."""
