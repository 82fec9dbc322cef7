"""What `argosy plan` asks the planner, and how the answers are printed and drawn."""
