"""What training costs and what it learns: parity of the outer loop, churn, step times."""
