"""A plain client, for who is no agent: the site ends a world, drills disturb it."""

from __future__ import annotations

import socket
from typing import Any

import orjson

ANSWER_BYTES_MAX = 16 * 1_048_576


class WorldError(Exception):
    """The world refused, or could not be reached."""


def ask(address: str, secret: str, verb: str, *values: object, timeout_s: float) -> Any:
    """One request on a connection of its own; see server.py for the verbs.

    Returns the answer's first value. `ask(…, "finish", secret, timeout_s=150)` returns
    when the truth is stored.
    """
    requests = [[0, "hello", secret], [1, verb, *values]]
    try:
        with _connect(address, timeout_s) as connection:
            connection.sendall(orjson.dumps(requests) + b"\n")
            with connection.makefile("rb") as lines:
                answers: list[list[Any]] = []
                while len(answers) < len(requests):
                    line = lines.readline(ANSWER_BYTES_MAX)
                    if not line:
                        raise WorldError(f"{address}: closed without an answer")
                    answers += orjson.loads(line)
                    for _, failed, *said in answers:
                        if failed:
                            raise WorldError(f"{address}: {said}")
    except OSError as error:
        raise WorldError(f"{address}: {error}") from error
    return said[0] if said else None


def _connect(address: str, timeout_s: float) -> socket.socket:
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout_s)
    try:
        connection.connect(address.removeprefix("unix:"))
    except OSError:
        connection.close()
        raise
    return connection
