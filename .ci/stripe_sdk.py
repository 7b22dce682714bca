"""Stripe's own SDK, unmodified, against the reference server in Stripe's dialect.

It must see a replay for what it is, raise its own errors, and retry by itself what was lost, and
while a request with the same key runs. Usage: stripe_sdk.py SERVER_BINARY
"""

import json
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress

import stripe

CALL = {"caller_id": "+14155551234", "destination": "+14155556789"}
OTHER_CALL = {**CALL, "destination": "+442079460000"}


def main(binary: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        options = ["--listen", "127.0.0.1:0", "--store", f"{home}/store", "--journal", f"{home}/journal"]
        options += ["--dialect", "stripe", "--latency", "1s", "--wait", "0ms"]
        server = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, text=True)
        try:
            check(Proxy(int(server.stdout.readline().rpartition(":")[2])))
            with open(f"{home}/journal") as journal:
                lines = [line for line in journal if '"method":"POST"' in line]
            assert len(lines) == 4, lines
        finally:
            server.kill()
            server.wait()


class Proxy:
    """Passes bytes on, counts the requests, and loses an answer when it is told to."""

    def __init__(self, port: int) -> None:
        self.requests = 0
        self.loses = False
        self.server = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.server)
            for ends in [(client, server), (server, client)]:
                threading.Thread(target=self.pass_on, args=(*ends, client), daemon=True).start()

    def pass_on(self, source: socket.socket, target: socket.socket, client: socket.socket) -> None:
        while data := receive(source):
            if source is client:
                self.requests += data.count(b" /v1/")
            elif self.loses:
                self.loses = False
                break
            with suppress(OSError):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def receive(source: socket.socket) -> bytes:
    with suppress(OSError):
        return source.recv(65536)
    return b""


def check(proxy: Proxy) -> None:
    at = {"base_addresses": {"api": proxy.base}, "max_network_retries": 10}
    client = stripe.StripeClient("sk_test_1", **at)

    # The answer is lost after the call was placed: the SDK sends it again, under a key of its own.
    proxy.loses = True
    placed = client.raw_request("post", "/v1/calls", **CALL)
    assert (placed.code, placed.headers.get("Idempotent-Replayed")) == (201, "true"), placed.headers
    assert proxy.requests == 2, proxy.requests

    # Two at once: one is told 409 idempotency_key_in_use, and the SDK asks again until it replays.
    answers = []
    place = lambda: answers.append(client.raw_request("post", "/v1/calls", **CALL, idempotency_key="a"))
    threads = [threading.Thread(target=place) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.code for answer in answers] == [201, 201], answers
    assert answers[0].body == answers[1].body
    marks = sorted(answer.headers.get("Idempotent-Replayed", "false") for answer in answers)
    assert marks == ["false", "true"], marks
    assert all(answer.headers["Request-Id"].startswith("req_") for answer in answers)

    asked = proxy.requests
    try:
        client.raw_request("post", "/v1/calls", **OTHER_CALL, idempotency_key="a")
        raise AssertionError("it is a conflict")
    except stripe.IdempotencyError as error:
        assert error.http_status == 400 and error.request_id.startswith("req_")
        assert "Try using a key other than 'a'" in error.user_message, error.user_message
    assert proxy.requests == asked + 1, "a conflict is not retried"

    theirs = stripe.StripeClient("sk_test_2", **at)
    placed = theirs.raw_request("post", "/v1/calls", **OTHER_CALL, idempotency_key="a")
    assert "Idempotent-Replayed" not in placed.headers, "another secret key has keys of its own"

    try:
        client.raw_request("post", "/v1/calls", caller_id="4155551234", destination="+442079460000")
        raise AssertionError("it is no number")
    except stripe.InvalidRequestError as error:
        assert (error.http_status, error.param) == (400, "caller_id"), error

    placed = client.raw_request("post", "/v1/calls", **OTHER_CALL)
    call = json.loads(placed.body)["id"]
    try:
        client.raw_request("delete", f"/v1/calls/{call}", idempotency_key="a")
        raise AssertionError("it is another endpoint")
    except stripe.IdempotencyError as error:
        assert "only be used for the same endpoint" in error.user_message, error.user_message
    deleted = client.raw_request("delete", f"/v1/calls/{call}")
    assert (deleted.code, '"deleted":true' in deleted.body) == (200, True), deleted.body
    print(f"stripe {stripe.VERSION} for Python: replays, retries and errors are its own")


main(sys.argv[1])
