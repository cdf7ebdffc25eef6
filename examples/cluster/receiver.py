"""The demo's two receivers in one: /mail answers, /sync is silent while the file named by the argument is there.

It prints its address, and then a line for each delivery. It verifies nothing; the use cases beside this folder do.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SILENT = sys.argv[1]


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        while self.path == "/sync" and os.path.exists(SILENT):
            time.sleep(0.1)
        print(f"{self.path[1:]:5} got {json.loads(body)['event']} as {self.headers['webhook-id'][:12]}...", flush=True)
        self.send_response(204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
print(f"127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
