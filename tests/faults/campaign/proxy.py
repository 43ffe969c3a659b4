"""A TCP proxy before the service that cuts connections in the middle of whatever they carry."""

from __future__ import annotations

import random
import socket
import threading

LEAST = 200
MOST = 500_000  # bytes; some connections must carry all that a watcher has missed, which comes in one message


class CuttingProxy:
    """Passes bytes to a Unix socket, and cuts each connection after a random number of them.

    Parameters
    ----------
    path : str
        The service's socket.
    seed : int
        Of the dice.
    cutting : bool
        Whether it cuts connections that are made from now on.
    """

    def __init__(self, path: str, seed: int, cutting: bool) -> None:
        self._path = path
        self._dice = random.Random(seed)
        self.cutting = cutting
        self._door = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._door.getsockname()[1]}"
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._path)
            except OSError:  # the service is away: so is its port
                near.close()
                far.close()
                continue
            budget = int(LEAST * (MOST / LEAST) ** self._dice.random()) if self.cutting else -1
            threading.Thread(target=self._pump, args=(near, far, -1), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, budget), daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket, budget: int) -> None:
        """Pass bytes on until one side ends; a budget of -1 is never used up."""
        try:
            while data := source.recv(4096 if budget < 0 else min(4096, budget)):
                to.sendall(data)
                if budget > 0:
                    budget -= len(data)
                    if budget == 0:
                        self.cuts += 1
                        break
        except OSError:
            pass
        for end in (source, to):
            try:
                end.shutdown(socket.SHUT_RDWR)  # wakes the other direction, which closes its own end
            except OSError:
                continue
        source.close()
