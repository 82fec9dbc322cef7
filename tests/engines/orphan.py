"""A parent to be killed: starts the replica of its argument, says its pid, and waits."""

import json
import os
import subprocess
import sys
import time

started = json.loads(sys.argv[1])
child = subprocess.Popen(
    started["argv"],
    env={**os.environ, **started["env"]},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
if sys.argv[2] == "listening":
    assert child.stdout is not None
    child.stdout.readline()
os.write(1, b"%d\n" % child.pid)
time.sleep(60)
