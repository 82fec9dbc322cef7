"""A real vLLM server for the tests: installed, given weights, started, listened in on.

`install.py` makes its virtual environment, `weights.py` turns the fleet's GGUF file into what it
can load (`convert_gguf.py` does it, inside that environment), `vllm_server.py` runs it, `relay.py`
stands between it and the gateway and remembers what both said. `house.py` puts a fleet before it,
`told.py` asks, `cuts.py` breaks one engine under sixteen streams and judges. What is tested with it
is in `tests/system/test_unlike_engines.py`; what came out, in `docs/ENGINES.md`.
"""
