"""Stripe's own SDK, unmodified, against the reference server in Stripe's dialect.

It must see a replay for what it is, raise its own errors, and retry by itself while a request with
the same key runs. Usage: stripe_sdk.py SERVER_BINARY
"""

import json
import subprocess
import sys
import tempfile
import threading

import stripe

CALL = {"caller_id": "+14155551234", "destination": "+14155556789"}
OTHER_CALL = {**CALL, "destination": "+442079460000"}


def main(binary: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        options = ["--listen", "127.0.0.1:0", "--store", f"{home}/store", "--journal", f"{home}/journal"]
        options += ["--dialect", "stripe", "--latency", "1s", "--wait", "0ms"]
        server = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, text=True)
        try:
            base = server.stdout.readline().strip().removeprefix("listening on ")
            check(base)
            with open(f"{home}/journal") as journal:
                lines = journal.readlines()
            assert len(lines) == 3, lines
        finally:
            server.kill()
            server.wait()


def check(base: str) -> None:
    client = stripe.StripeClient("sk_test_1", base_addresses={"api": base}, max_network_retries=10)

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

    try:
        client.raw_request("post", "/v1/calls", **OTHER_CALL, idempotency_key="a")
        raise AssertionError("it is a conflict")
    except stripe.IdempotencyError as error:
        assert error.http_status == 400 and error.request_id.startswith("req_")
        assert "Try using a key other than 'a'" in error.user_message, error.user_message

    try:
        client.raw_request("post", "/v1/calls", caller_id="4155551234", destination="+442079460000")
        raise AssertionError("it is no number")
    except stripe.InvalidRequestError as error:
        assert (error.http_status, error.param) == (400, "caller_id"), error

    placed = client.raw_request("post", "/v1/calls", **OTHER_CALL)
    call = json.loads(placed.body)["id"]
    deleted = client.raw_request("delete", f"/v1/calls/{call}")
    assert (deleted.code, '"deleted":true' in deleted.body) == (200, True), deleted.body
    print(f"stripe {stripe.VERSION}: replays, retries and errors are its own")


main(sys.argv[1])
