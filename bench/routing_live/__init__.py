"""What routing and admission are worth on real llama.cpp replicas, behind the real `argosy up`.

Three scenarios (`chats`, `mixed`, `flood`), each in a file of its own; `fleet.py` starts and ends
fleets, `client.py` asks, `figures.py` holds what is arithmetic. Begin with `__main__.py`.
"""
