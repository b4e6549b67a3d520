"""Where the processes of a cluster meet before they train: at the chief's address in TF_CONFIG.

The chief listens there until its training starts, and the port goes to TensorFlow. A connection is
proof that the other side lives; a file in a shared folder could be an earlier attempt's. Both sides
send JSON, one object a line:

- the chief: `{"chief": CLUSTER}`, with a hash that only members of the same cluster have
- a member: `{"member": NUMBER}`
- the chief: `{"job": {...}}` once all members are there, or `{"over": EXIT_CODE}`

The connection stays open as long as the chief needs the member.
"""

import contextlib
import json
import select
import socket
import threading
import time
from typing import Any

_HELLO_SECONDS = 10.0
_LIMIT = 1 << 26
"""Bytes of a line: a job with its vocabularies' sizes is far smaller."""


class Refused(Exception):
    """What answers is no chief of this cluster, or it is gone."""


class Line:
    """A connection that sends and receives JSON objects."""

    def __init__(self, connection: socket.socket):
        """Takes an open connection."""
        self._socket, self._received = connection, b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A machine that vanishes says nothing: after a minute without an answer it is gone.
        for option, value in (("IDLE", 30), ("INTVL", 10), ("CNT", 3)):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{option}"), value)

    def send(self, message: dict[str, Any]) -> None:
        """Sends an object.

        Raises:
          OSError: the other side is gone.
        """
        self._socket.settimeout(_HELLO_SECONDS)
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next object, or None if none comes in time.

        Raises:
          Refused: the other side is gone, or does not speak this language.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if not select.select([self._socket], [], [], max(0.0, left))[0]:
                return None
            if not self._more():
                raise Refused("the connection was closed")
        line, _, self._received = self._received.partition(b"\n")
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                return message
        raise Refused("the answer is not this program's")

    def _more(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            return False
        self._received += data
        return bool(data) and len(self._received) < _LIMIT

    def is_open(self) -> bool:
        """Whether the other side is there. Nothing more is expected from it."""
        while select.select([self._socket], [], [], 0)[0]:
            if not self._more():
                return False
        return True

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()


class Chief:
    """The chief's side: collects the members."""

    def __init__(self, port: int, cluster: str, members: int):
        """Listens.

        Args:
          port: of the chief's address in TF_CONFIG.
          cluster: the cluster's hash.
          members: how many others there are; they have the numbers from 1 on.

        Raises:
          OSError: something else listens there.
        """
        self._cluster, self._wanted = cluster, set(range(1, members + 1))
        self._present: dict[int, Line] = {}
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
        self.is_listening = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.is_listening:
            with contextlib.suppress(OSError):
                connection, _ = self._server.accept()
                threading.Thread(target=self._greet, args=[Line(connection)], daemon=True).start()

    def _greet(self, line: Line) -> None:
        with contextlib.suppress(OSError, Refused):
            line.send({"chief": self._cluster})
            hello = line.receive(_HELLO_SECONDS)
            if hello and hello.get("member") in self._wanted:
                self._present[hello["member"]] = line  # in place of what it was before a restart
                return
        line.close()

    def missing(self) -> list[int]:
        """The numbers of the members that are not there."""
        for number, line in list(self._present.items()):
            if not line.is_open():
                del self._present[number]
        return sorted(self._wanted - set(self._present))

    def send(self, message: dict[str, Any]) -> None:
        """Sends the same to all that are there."""
        for line in list(self._present.values()):
            with contextlib.suppress(OSError):
                line.send(message)

    def stop_listening(self) -> None:
        """Frees the port; who is there stays."""
        self.is_listening = False
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # close alone would not wake `accept`
        self._server.close()

    def close(self) -> None:
        """Ends everything."""
        self.stop_listening()
        for line in list(self._present.values()):
            line.close()


def connect(address: str, cluster: str, number: int) -> Line:
    """A member's connection to the chief.

    Args:
      address: `host:port`.
      cluster: the cluster's hash.
      number: the member's.

    Raises:
      Refused: nobody answers there, or not the chief of this cluster, or it trains already.
    """
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
    except OSError as error:
        raise Refused(str(error)) from error
    line = Line(connection)
    try:
        # TensorFlow, once it has the port, waits for the client's first word, or sends binary.
        hello = line.receive(5)
        if hello is None or hello.get("chief") != cluster:
            raise Refused("what answers there is not the chief, or it trains already")
        line.send({"member": number})
    except (OSError, Refused) as error:
        line.close()
        raise Refused(str(error)) from error
    return line
