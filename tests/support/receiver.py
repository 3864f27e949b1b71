"""A web hook and a Pushgateway on loopback."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import seconds


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent: method, path, authorization and body of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str, bytes]] = []
        super().__init__(("127.0.0.1", 0), Receiving)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def wait(self, arrived: Callable[[], bool]) -> None:
        """Wait until this has arrived."""
        until = time.monotonic() + seconds(20)
        while not arrived():
            assert time.monotonic() < until, "it does not arrive"
            time.sleep(0.05)

    def pushed(self, command: str) -> dict[str, float]:
        """What was pushed last for a command. The labels' values stand in brackets."""
        body = [body for _, path, _, body in self.received if f"/command/{command}/" in path][-1]
        return {
            sample.name + "".join(f"[{value}]" for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }


class Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.command, self.path, self.headers.get("authorization", ""), body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass
