"""A small file server on this machine that can misbehave in all the ways real ones do."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Fault:
    """One bad reply: a status with headers, or (``cut``) the right body broken off."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    body: bytes = b""


@dataclass
class Request:
    """What a client has asked for."""

    path: str
    headers: dict[str, str]


class FileServer:
    """``files`` by path; ``faults`` of a path are answered first, one each, then the file.

    ``logins`` maps a path's beginning to the Authorization header it needs. ``ranges`` and ``tags``
    switch resuming off.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.logins: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.ranges = self.tags = True
        self.requests: list[Request] = []
        self.address = ""

    def url(self, path: str) -> str:
        """The address of ``path`` here."""
        return f"{self.address}{path}"

    def asked(self, path: str) -> list[Request]:
        """The requests for ``path`` so far."""
        return [one for one in self.requests if one.path == path]

    @contextmanager
    def running(self) -> Iterator["FileServer"]:
        """Serve on a free port until the block ends."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            do_POST = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        if length := int(handler.headers.get("Content-Length", 0)):
            handler.rfile.read(length)
        path = unquote(handler.path)
        self.requests.append(Request(path, dict(handler.headers)))
        for beginning, needed in self.logins.items():
            if path.startswith(beginning) and handler.headers.get("Authorization") != needed:
                return self._send(handler, Fault(401))
        fault = self.faults[path].pop(0) if self.faults[path] else Fault()
        if fault.status != 200:
            return self._send(handler, fault)
        if path not in self.files:
            return self._send(handler, Fault(404))
        self._send_file(handler, path, fault)

    def _send(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        handler.send_response(fault.status)
        headers = {"Content-Length": str(len(fault.body))} | fault.headers
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(fault.body)

    def _send_file(self, handler: BaseHTTPRequestHandler, path: str, fault: Fault) -> None:
        body = self.files[path]
        tag = f'"{hash(body)}"'
        wanted = handler.headers.get("Range", "") if self.ranges else ""
        if handler.headers.get("If-Range", tag) != tag:
            wanted = ""
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(body):
            return self._send(handler, Fault(416, {"Content-Range": f"bytes */{len(body)}"}))
        headers = {"Content-Length": str(len(body) - start)}
        headers["Content-Type"] = self.types.get(path, "application/octet-stream")
        if self.tags:
            headers["ETag"] = tag
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.send_response(206 if wanted else 200)
        for name, value in (headers | fault.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[start : fault.cut])
        handler.close_connection = fault.cut is not None
