"""What should run where, and what should be bought: plans by mixed-integer optimization.

Pure: it takes a fleet, asks the simulator what a replica sustains, and gives back a plan.
"""
