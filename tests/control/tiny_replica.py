"""The smallest replica: says where it listens, answers GET /health, ends when its stdin does.

Flags: --crash (at start, with a reason), --crash-after SECONDS, --mute (never listens),
--loading SECONDS (answers 503 for so long), --stubborn (ignores SIGTERM and its stdin's end).
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED_S = time.monotonic()


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--crash", action="store_true")
    parser.add_argument("--crash-after", type=float)
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--loading", type=float, default=0.0)
    parser.add_argument("--stubborn", action="store_true")
    return parser.parse_args()


def main():
    flags = parse()
    if flags.crash:
        sys.exit("weights.gguf: bad magic")

    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            loading = time.monotonic() - STARTED_S < flags.loading
            self.send_response(503 if loading else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    if flags.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if flags.crash_after is not None:
        threading.Timer(flags.crash_after, os._exit, (7,)).start()
    if not flags.mute:
        sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}) + "\n")
        sys.stdout.flush()
    if flags.stubborn:
        threading.Event().wait()
    sys.stdin.read()
    os._exit(0)


main()
