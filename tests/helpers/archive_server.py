"""A server on loopback that sends an archive, as well or as badly as servers do."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from helpers.packing import ARCHIVE


class ArchiveServer(ThreadingHTTPServer):
    """Serves `content` (None: an error) at /cifar-10-python.tar.gz, and keeps the Range header of every request."""

    daemon_threads = True

    def __init__(self, content: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.honours_range = content, True
        self.ranges: list[str | None] = []
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self.bytes_per_second: int | None = None
        self.stop = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{ARCHIVE}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        if server.content is None:
            self.send_error(503)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", wanted) if wanted and server.honours_range else None
        start = int(asked[1]) if asked else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        body = server.content[start:][: server.cut_after]
        for at in range(0, len(body), 20_000):
            if server.stall_after is not None and at >= server.stall_after:
                server.stop.wait(20)
                return
            self.wfile.write(body[at : at + 20_000])
            if server.bytes_per_second:
                server.stop.wait(20_000 / server.bytes_per_second)

    def log_message(self, *_: Any) -> None:
        pass
