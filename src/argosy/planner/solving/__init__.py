"""From a problem to a plan: commitments, whole replicas, a proven bound; or why there is none."""
