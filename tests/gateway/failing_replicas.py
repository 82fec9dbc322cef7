"""What replicas say in the tests of their failures, and what is asked of them."""

import json

from raw_client import HELLO
from upstream import answers, delta

GOOD = answers("Hello", " world")
STREAM = {**HELLO, "stream": True}
ERROR = b'{"error": {"message": "out of memory", "type": "server_error"}}'
EVENT = b"data: " + json.dumps(delta("Hello")).encode() + b"\n\n"
ENDED = b"data: " + json.dumps(delta(finish="stop")).encode() + b"\n\ndata: [DONE]\n\n"
WITHOUT_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
