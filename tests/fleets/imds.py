"""python imds.py FACTS.json: EC2's instance metadata, version 2, at its own address."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TOKEN = "a-session-token"
FACTS = json.loads(Path(sys.argv[1]).read_text())


class Metadata(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        ok = self.path == "/latest/api/token" and lifetime.isdecimal()
        self._answer(200 if ok else 400, TOKEN)

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self._answer(401, "")
            return
        said = FACTS.get(self.path.removeprefix("/latest/meta-data/"))
        self._answer(200 if said else 404, said or "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


HTTPServer(("169.254.169.254", 80), Metadata).serve_forever()
