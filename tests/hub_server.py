"""A small Hugging Face Hub on this machine, for the genuine clients, which can fail as ordered.

It speaks the part of the Hub's protocol that the clients use to create, upload (LFS), tag, list and
download; the large-file store of the real one is named xet, hence ``HF_HUB_DISABLE_XET=1``.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_routes import Call, Reply, reply
from hub_store import Store


@dataclass
class Fault:
    """What goes wrong with the first ``times`` requests whose "METHOD path" matches ``where``.

    ``act`` happens first. Then ``status`` is answered instead of the right reply, or the connection
    is cut: ``lose="request"`` before anything was done, ``lose="reply"`` after it was, and
    ``lose="half"`` in the middle of the reply's body.
    """

    where: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    lose: str = ""
    act: Callable[["HubServer"], object] | None = None
    times: int = 1


class HubServer(Store):
    """A Hub at ``address``; ``log`` holds "METHOD path" of every request so far."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Fault] = []
        self.log: list[str] = []

    def fail(self, where: str, status: int = 0, **how: Any) -> None:
        """Order a ``Fault``."""
        self.faults.append(Fault(where, status, **how))

    def asked(self, where: str) -> int:
        """How many requests matched ``where`` so far."""
        return sum(re.search(where, line) is not None for line in self.log)

    @contextmanager
    def running(self) -> Iterator["HubServer"]:
        """Serve on a free port until the block ends."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one packet, or each reply takes 40 ms

            def answer(self) -> None:
                hub._answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = read_body(handler)
        url = urlsplit(handler.path)
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        query, path = parse_qs(url.query), unquote(url.path)
        call = Call(handler.command, path, query, handler.headers, body, token)
        fault = self._fault_of(f"{call.method} {path}")
        if fault.act:
            fault.act(self)
        done = Reply(b"", fault.headers, fault.status)
        if fault.lose != "request" and not fault.status:
            done = reply(self, call)
        if fault.lose in ("", "half"):
            self._send(handler, done, half=fault.lose == "half")
        handler.close_connection |= bool(fault.lose)

    def _fault_of(self, line: str) -> Fault:
        """The fault ordered for a request, or one that does nothing."""
        with self.lock:
            self.log.append(line)
            ordered = (f for f in self.faults if f.times and re.search(f.where, line))
            fault = next(ordered, Fault(""))
            fault.times -= 1
            return fault

    def _send(self, handler: BaseHTTPRequestHandler, done: Reply, *, half: bool) -> None:
        handler.send_response(done.status)
        headers = {"Content-Length": str(len(done.body))} | done.headers
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(done.body[: len(done.body) // 2] if half else done.body)
        handler.wfile.flush()


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    """The body of a request, sent whole or in chunks."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)
