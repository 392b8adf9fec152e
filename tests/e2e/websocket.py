"""As much of a WebSocket (RFC 6455) as it takes to read what a server on loopback sends."""

import base64
import os
import socket
import struct
import threading
from collections.abc import Callable

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Listener:
    """Hands every message to `heard` from a thread of its own: str for text, bytes for the rest."""

    def __init__(self, port: int, path: str, heard: Callable[[str | bytes], None]) -> None:
        self.socket, self.heard = socket.create_connection(("127.0.0.1", port), timeout=30), heard
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        assert b" 101 " in self.stream.readline()
        while self.stream.readline().strip():
            pass
        self.socket.settimeout(None)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """End the thread too."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _listen(self) -> None:
        message, kind = b"", 0
        while head := self.stream.read(2):
            final, code, length = head[0] & 0x80, head[0] & 0x0F, head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", self.stream.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.stream.read(8))
            part = self.stream.read(length)
            if code == _CLOSE:
                return
            if code == _PING:
                mask = os.urandom(4)
                masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(part))
                self.socket.sendall(bytes([0x80 | _PONG, 0x80 | len(part)]) + mask + masked)
            elif code != _PONG:
                message, kind = message + part, code or kind
                if final:
                    self.heard(message.decode() if kind == _TEXT else message)
                    message = b""
