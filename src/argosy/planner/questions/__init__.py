"""What plans are compared with, what an offer is worth, what if something changes."""
