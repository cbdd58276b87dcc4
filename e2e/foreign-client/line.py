"""The line to a server: Socket.IO with the handshake after every connection, requests repeated as the README asks, and files
over HTTP. Knows no rounds."""

import json
import random
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

import requests
import socketio

from identity import Identity

NAMESPACE = "/volunteer"
PROTOCOL_VERSION = 3
ANSWER_SECONDS = 20
MOST_REPEATS = 8


class WireError(Exception):
    """What the server refused."""

    def __init__(self, error: dict):
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code = error.get("code", "internal")
        self.retry_after = error.get("retryAfterMs")


class Broken(Exception):
    """The line broke, or no answer came."""


class Failure(Exception):
    """Something that repeating does not mend."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Answer:
    """One acknowledgement on its way."""

    def __init__(self):
        self._came = threading.Event()
        self._ack = None

    def arrive(self, ack) -> None:
        """None: the line broke."""
        self._ack = ack
        self._came.set()

    def value(self):
        if not self._came.wait(ANSWER_SECONDS) or self._ack is None:
            raise Broken("no answer")
        if self._ack.get("ok") is True:
            return self._ack["value"]
        raise WireError(self._ack["error"])


class Line:
    def __init__(self, url: str, identity: Identity, hello: dict, transport: str, ca: str | None):
        self._url = url.rstrip("/")
        self._identity = identity
        self._hello = hello
        self._transport = transport
        self._ca = ca
        self._socket: socketio.Client | None = None
        self._waiting: set[Answer] = set()
        self._lock = threading.RLock()
        self.run: dict | None = None
        self.round: dict | None = None
        self.connections = 0
        self._notices: dict[str, list] = {}
        self._noticed = threading.Condition()

    # --- connection

    def connect(self) -> None:
        """Connects and proves the key, as often as it takes. Raises Failure or WireError where trying again cannot help."""
        attempt = 0
        while not self.is_up():
            try:
                self._connect_once()
                return
            except (socketio.exceptions.ConnectionError, Broken) as error:
                ceiling = min(30, 2**attempt)
                pause = ceiling * random.uniform(0.5, 1)
                say(f"No connection ({error}); trying again in {pause:.1f} s.")
            except WireError as error:
                if error.retry_after is None:
                    raise
                pause = error.retry_after / 1000 * random.uniform(1, 1.25)
                say(f"{error} Trying again in {pause:.1f} s.")
            attempt += 1
            self.drop()
            time.sleep(pause)

    def is_up(self) -> bool:
        return self._socket is not None and NAMESPACE in self._socket.namespaces

    def _connect_once(self) -> None:
        session = requests.Session()
        if self._ca:
            session.verify = self._ca
            # Else REQUESTS_CA_BUNDLE of the environment would win over it.
            session.trust_env = False
        socket = socketio.Client(reconnection=False, http_session=session)
        socket.on("disconnect", self._lost, namespace=NAMESPACE)
        for event in ("run:state", "round:state", "lease:granted", "lease:revoked"):
            socket.on(event, lambda payload, event=event: self._notice(event, payload), namespace=NAMESPACE)
        socket.connect(self._url, namespaces=[NAMESPACE], transports=[self._transport], wait_timeout=ANSWER_SECONDS)
        with self._lock:
            self._socket = socket
        greeting = self.ask(
            "volunteer:hello",
            {**self._hello, "protocolVersion": PROTOCOL_VERSION},
        ).value()
        signature = self._identity.answer(greeting["challenge"])
        proved = self.ask("volunteer:prove", {"publicKey": self._identity.public_key, "signature": signature}).value()
        if proved["clientId"] != self._identity.client_id:
            raise Failure(f"The server calls this key {proved['clientId']}; it is {self._identity.client_id}.")
        if self.run and self.run["runHash"] != greeting["run"]["runHash"]:
            raise Failure("The server now serves another model or other tasks. Start again.")
        self.run, self.round = greeting["run"], proved["round"]
        self._hello["runId"] = self.run["runId"]
        self.connections += 1

    def _lost(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            answer.arrive(None)

    def drop(self) -> None:
        """Ends the connection; the next request makes another."""
        with self._lock:
            socket, self._socket = self._socket, None
        if socket:
            socket.disconnect()
        self._lost()

    # --- messages

    def ask(self, event: str, payload: dict) -> Answer:
        """Sends one request on the connection there is."""
        answer = Answer()
        with self._lock:
            socket = self._socket
            self._waiting.add(answer)

        def arrived(ack=None):
            with self._lock:
                self._waiting.discard(answer)
            answer.arrive(ack)

        try:
            if socket is None:
                raise Broken("not connected")
            socket.emit(event, payload, namespace=NAMESPACE, callback=arrived)
        except (socketio.exceptions.SocketIOError, Broken):
            arrived()
        return answer

    def request(self, event: str, payload: dict):
        """The reply. Repeated over broken connections, and after "try again later"."""
        repeats = 0
        while True:
            self.connect()
            try:
                return self.ask(event, payload).value()
            except Broken:
                self.drop()
            except WireError as error:
                repeats += 1
                if error.retry_after is None or repeats >= MOST_REPEATS:
                    raise
                time.sleep(error.retry_after / 1000 * random.uniform(1, 1.25))

    def _notice(self, event: str, payload: dict) -> None:
        with self._noticed:
            if event == "run:state":
                self.run = payload
            elif event == "round:state":
                self.round = payload
            else:
                self._notices.setdefault(event, []).append(payload)
            self._noticed.notify_all()

    def take(self, event: str):
        """The oldest lease:granted or lease:revoked nobody has looked at, or None."""
        with self._noticed:
            kept = self._notices.get(event)
            return kept.pop(0) if kept else None

    def wait(self, seconds: float) -> None:
        """Until a notice comes, or the time is over."""
        with self._noticed:
            self._noticed.wait(seconds)

    # --- files

    def get(self, path: str, first: int | None = None, last: int | None = None) -> bytes:
        """The bytes at a path, or from `first` to `last` of them, both included."""
        asked = urllib.request.Request(f"{self._url}{path}")
        if first is not None:
            asked.add_header("Range", f"bytes={first}-{last}")
        context = ssl.create_default_context(cafile=self._ca) if self._url.startswith("https:") else None
        for attempt in range(MOST_REPEATS):
            try:
                with urllib.request.urlopen(asked, timeout=60, context=context) as response:
                    if first is not None and response.status != 206:
                        raise Failure(f"GET {path} with a range was answered {response.status}, not 206.")
                    return response.read()
            except urllib.error.HTTPError as refused:
                body = refused.read()
                try:
                    error = WireError(json.loads(body)["error"])
                except (ValueError, KeyError, TypeError) as cause:
                    raise Failure(f"GET {path} was answered {refused.code} without an error of Weft's.") from cause
                if error.retry_after is None:
                    raise error from refused
                time.sleep(error.retry_after / 1000 * random.uniform(1, 1.25))
            except (urllib.error.URLError, ConnectionError, TimeoutError) as broken:
                say(f"GET {path} broke ({broken}); trying again.")
                time.sleep(min(30, 2**attempt) * random.uniform(0.5, 1))
        raise Failure(f"GET {path} did not succeed in {MOST_REPEATS} attempts.")
