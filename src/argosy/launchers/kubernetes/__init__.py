"""Replicas on Kubernetes: what objects they are, and the launcher that asks an API server for them.

`manifests.py` is pure and needs no library; `launch.py` is the launcher, and needs the extra
`kubernetes`. Read `manifests.py` first.
"""
