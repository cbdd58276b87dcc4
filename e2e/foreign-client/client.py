#!/usr/bin/env python3
"""A volunteer in another language, written from packages/protocol/README.md alone: joins, fetches and checks the files, delivers
factors and checks the receipt. It does not train: its update is the start weights moved a little, at random."""

import argparse
import json
import math
import random
import sys
import threading
import time
from array import array
from pathlib import Path

try:
    from identity import Identity, canonical, sha256
    from line import Broken, Failure, Line, WireError, say
except ImportError as missing:
    sys.exit(
        f"{missing}. On Debian: apt-get install python3-socketio python3-requests python3-websocket python3-cryptography"
    )
import safetensors
from receipts import NotProven, check_inclusion, check_signature

LOST = {"unknown-lease", "lease-expired", "round-closed"}
IN_FLIGHT = 2


class LeaseLost(Exception):
    pass


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failure(otherwise)


def fetch_run(line: Line) -> tuple[dict, dict[str, bytes], dict[str, bytes]]:
    """The manifest, the model's files by name and each task's training rows, every piece checked."""
    run = line.run
    manifest = json.loads(line.get(f"/api/runs/{run['runId']}/manifest"))
    check(sha256(canonical(manifest)) == run["manifestHash"], "The manifest does not have the run's manifest hash.")
    check(sha256(canonical(run["identity"])) == run["runHash"], "The run's identity does not have its run hash.")
    check(run["identity"]["manifestHash"] == run["manifestHash"], "The run's identity names another manifest.")
    model, rows = {}, {}
    for file in manifest["files"]:
        if file["kind"] == "model" or file["name"] == "train.jsonl":
            content = fetch_file(line, file, manifest["pieceBytes"])
            if file["kind"] == "model":
                model[file["name"]] = content
            else:
                rows[file["task"]] = content
    say(f"Fetched {len(model)} files of {manifest['model']['name']} and the rows of {len(rows)} tasks; all hashes hold.")
    return manifest, model, rows


def fetch_file(line: Line, file: dict, piece_bytes: int) -> bytes:
    content = b""
    for number, expected in enumerate(file["pieces"]):
        first = number * piece_bytes
        piece = line.get(f"/api/blobs/{file['sha256']}", first, min(first + piece_bytes, file["bytes"]) - 1)
        check(sha256(piece) == expected, f"Piece {number} of {file['name']} does not have its SHA-256.")
        content += piece
    check(sha256(content) == file["sha256"], f"{file['name']} does not have its SHA-256.")
    return content


def obtain_lease(line: Line, rank: int) -> dict:
    """Asks for a place until there is one."""
    check(rank in line.run["settings"]["ranks"], f"The run grants ranks {line.run['settings']['ranks']}, not {rank}.")
    wish = {
        "device": {
            "adapter": {"vendor": "", "architecture": "", "device": "", "description": "Python", "software": True},
            "limits": {"maxBufferSize": 2**31, "maxStorageBufferBindingSize": 2**27},
            "features": [],
            "deviceMemoryGiB": None,
        },
        "proposal": {
            "rank": rank,
            "verdicts": [
                {"rank": each, "fits": each <= rank, "memoryBytes": 0, "uploadBytes": 0, "reason": "as asked for"}
                for each in line.run["settings"]["ranks"]
            ],
            "ownLimits": {"maxMemoryBytes": None, "maxRank": rank, "maxUploadBytes": None},
            "stepSeconds": None,
        },
        "data": {"kind": "task", "task": None},
    }
    while True:
        check(line.run["state"] not in ("completed", "stopped"), f"The run is over: {line.run['outcome']}")
        connections = line.connections
        try:
            answer = line.request("round:join", wish)
        except WireError as error:
            if error.code != "run-not-open":
                raise
            line.wait(5)
            continue
        if answer["status"] == "leased":
            return answer["lease"]
        say(f"Waiting: {answer['reason']}")
        again = time.monotonic() + answer["retryAfterMs"] / 1000 * random.uniform(1, 1.25)
        while time.monotonic() < again and line.connections == connections and line.is_up():
            granted = line.take("lease:granted")
            if granted:
                return granted
            line.wait(min(1, max(0.01, again - time.monotonic())))


class Keeper:
    """Heartbeats of one lease, in a thread of its own."""

    def __init__(self, line: Line, lease: dict):
        self._line, self._lease = line, lease
        self._over = threading.Event()
        self._stage, self._step = "training", 0
        self.lost: str | None = None
        self.beats = 0
        self.beat()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stage(self, stage: str, step: int) -> None:
        self._stage, self._step = stage, step

    def beat(self) -> None:
        """One heartbeat on the connection there is; while there is none the next one makes it good."""
        try:
            self._heard(self._line.ask("lease:heartbeat", self._status()).value())
        except Broken:
            pass
        except WireError as error:
            self._refused(error)

    def insist(self) -> None:
        """One heartbeat, over a new connection where the old one broke. Raises LeaseLost."""
        try:
            self._heard(self._line.request("lease:heartbeat", self._status()))
        except WireError as error:
            self._refused(error)
        self.check()

    def _status(self) -> dict:
        steps = self._lease["training"]["steps"]
        progress = {
            "stage": self._stage,
            "step": self._step,
            "steps": steps,
            "loss": None,
            "targetTokens": 0,
            "tokensPerSecond": None,
        }
        return {"leaseId": self._lease["leaseId"], "hidden": False, "paused": False, "progress": progress}

    def _heard(self, answer: dict) -> None:
        self._line.round = answer["round"]
        self.beats += 1

    def _refused(self, error: WireError) -> None:
        # The thread of heartbeats may be quicker than the handshake of a new connection.
        if error.code in LOST:
            self.lost = str(error)
        elif error.retry_after is None and error.code != "out-of-order":
            raise error

    def _run(self) -> None:
        while not self._over.wait(self._lease["heartbeatMs"] / 1000):
            try:
                self.beat()
            except WireError as error:
                self.lost = str(error)

    def check(self) -> None:
        revoked = self._line.take("lease:revoked")
        if revoked and revoked["leaseId"] == self._lease["leaseId"]:
            self.lost = revoked["reason"]
        if self.lost:
            raise LeaseLost(self.lost)

    def close(self) -> None:
        self._over.set()


def move(start: dict[str, safetensors.Tensor], by: float, trainable: str) -> dict[str, safetensors.Tensor]:
    """Every trained element moved by a normal number of this deviation."""
    chance = random.SystemRandom()
    moved = {}
    for name, (shape, values) in start.items():
        still = trainable == "B" and ".lora_A." in name
        changed = values if still else array("f", (value + chance.gauss(0, by) for value in values))
        moved[name] = safetensors.Tensor(shape, changed)
    return moved


def announcement(lease: dict, update: bytes, rows: bytes, config: dict) -> dict:
    """upload:begin. Counts the words of the rows' completions for tokens; the loss is that of guessing among all tokens."""
    training = lease["training"]
    most = training["steps"] * training["batchSize"]
    completions = [json.loads(row)["completion"] for row in rows.decode().splitlines() if row.strip()][:most]
    tokens = sum(min(len(text.split()) + 1, training["sequenceLength"]) for text in completions)
    loss = math.log(config["vocab_size"])
    return {
        "leaseId": lease["leaseId"],
        "runHash": lease["runHash"],
        "startHash": lease["start"]["sha256"],
        "dtype": "F32",
        "rank": lease["grant"]["rank"],
        "bytes": len(update),
        "sha256": sha256(update),
        "targetTokens": max(1, tokens),
        "examples": len(completions),
        "steps": max(1, math.ceil(len(completions) / training["batchSize"])),
        "firstLoss": loss,
        "lastLoss": loss,
        "tokensPerSecond": 0,
    }


def deliver(line: Line, keeper: Keeper, begin: dict, update: bytes, chunk_bytes: int, break_at: int | None) -> tuple:
    """Sends the update; (receipt, offsets that upload:begin answered). With `break_at` the line is cut once on the way."""
    lease_id, resumed, starts = begin["leaseId"], [], 0
    while True:
        keeper.check()
        at = line.request("upload:begin", begin)["offset"]
        resumed.append(at)
        try:
            waiting, acknowledged = [], at
            while at < len(update) or waiting:
                while at < len(update) and len(waiting) < IN_FLIGHT:
                    part = update[at : at + chunk_bytes]
                    waiting.append(line.ask("upload:chunk", {"leaseId": lease_id, "offset": at, "bytes": part}))
                    at += len(part)
                reached = waiting.pop(0).value()["offset"]
                if reached > acknowledged:
                    starts, acknowledged = 0, reached
                if break_at is not None and acknowledged >= break_at:
                    break_at = None
                    say(f"Cutting the line at byte {acknowledged}, as asked.")
                    line.drop()
            return line.request("upload:commit", {"leaseId": lease_id, "sha256": begin["sha256"]}), resumed
        except Broken:
            line.drop()
        except WireError as error:
            if error.retry_after is not None:
                time.sleep(error.retry_after / 1000 * random.uniform(1, 1.25))
            elif error.code not in ("upload-offset", "upload-hash", "out-of-order") or starts >= 3:
                raise
            starts += 1


def check_receipt(receipt: dict, begin: dict, line: Line, client_id: str) -> None:
    """Whether the receipt is for what was sent."""
    expected = {
        "runId": line.run["runId"],
        "clientId": client_id,
        "leaseId": begin["leaseId"],
        "sha256": begin["sha256"],
        "bytes": begin["bytes"],
        "targetTokens": begin["targetTokens"],
    }
    for field, value in expected.items():
        check(receipt.get(field) == value, f"The receipt's {field} is {receipt.get(field)!r}; sent was {value!r}.")
    check(receipt["round"] >= 1 and len(receipt["receiptId"]) > 0, "The receipt names no round or has no id.")
    check(receipt["acceptedAt"].endswith("Z"), "The receipt's instant is not in UTC.")
    check_signature("weft-receipt:", receipt, line.run["receiptKey"])


def fetch_proof(line: Line, receipt: dict) -> dict:
    """The proof that the round's signed record holds the upload, once the round has been merged; checked."""
    path = f"/api/runs/{receipt['runId']}/receipts/{receipt['receiptId']}/proof"
    proof = json.loads(line.get(path))
    check_inclusion(proof, receipt, line.run["receiptKey"])
    say(f"The round's record holds it: leaf {proof['index']} of {proof['head']['size']}, {proof['outcome']}.")
    return proof


def take_part(line: Line, lease: dict, options, files: tuple, client_id: str) -> dict:
    """One lease, from start weights to receipt. Raises LeaseLost."""
    _, model, rows = files
    keeper = Keeper(line, lease)
    try:
        start_bytes = line.get(f"/api/blobs/{lease['start']['sha256']}")
        check(sha256(start_bytes) == lease["start"]["sha256"], "The start weights do not have their SHA-256.")
        check(len(start_bytes) == lease["start"]["bytes"], "The start weights do not have their size.")
        start = safetensors.read(start_bytes)
        for name, (shape, _) in start.items():
            module = name.removeprefix("base_model.model.").split(".lora_")[0]
            rank = lease["grant"]["rankPattern"].get(module, lease["grant"]["rank"])
            granted = shape[0] if ".lora_A." in name else shape[1]
            check(".sparse_delta" in name or granted == rank, f"{name} is {shape}; rank {rank} was granted.")
        say(f"Lease at rank {lease['grant']['rank']}: {len(start)} tensors, {len(start_bytes)} bytes.")
        while line.round["phase"] == "selecting":
            line.wait(1)
            keeper.insist()
        update = safetensors.write(move(start, options.move, lease["training"]["trainable"]))
        begin = announcement(lease, update, rows[lease["task"]], json.loads(model["config.json"]))
        keeper.stage("uploading", begin["steps"])
        receipt, resumed = deliver(line, keeper, begin, update, options.chunk_bytes, options.break_at)
        check_receipt(receipt, begin, line, client_id)
        again = line.request("upload:commit", {"leaseId": lease["leaseId"], "sha256": begin["sha256"]})
        check(again == receipt, "The same commit, said again, was answered with another receipt.")
    except LeaseLost:
        raise
    except BaseException:
        line.ask("lease:release", {"leaseId": lease["leaseId"], "reason": "failed"})
        raise
    finally:
        keeper.close()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "start.safetensors").write_bytes(start_bytes)
        (options.out / "update.safetensors").write_bytes(update)
        (options.out / "lease.json").write_text(json.dumps(lease))
    say(f"Receipt {receipt['receiptId']} for {len(update)} bytes in round {receipt['round']}; it says what was sent.")
    return {"receipt": receipt, "lease": lease, "begin": begin, "resumedAt": resumed, "heartbeats": keeper.beats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="address of the server")
    parser.add_argument("--rank", type=int, required=True, help="rank to ask for")
    parser.add_argument("--key", type=Path, required=True, help="file of this volunteer's key; made when missing")
    parser.add_argument("--name", help="name to show on the dashboard")
    parser.add_argument("--run", help="id of the run (default: the newest open one)")
    parser.add_argument("--transport", choices=["websocket", "polling"], default="websocket")
    parser.add_argument("--ca", help="PEM file of the certificate authority to trust")
    parser.add_argument("--move", type=float, default=0.01, help="standard deviation of an element's move")
    parser.add_argument("--chunk-bytes", type=int, default=128 * 1024)
    parser.add_argument("--break-at", type=int, help="cut the line once when this many bytes are acknowledged")
    parser.add_argument("--prove", action="store_true", help="wait for the merge, and check the proof of inclusion")
    parser.add_argument("--out", type=Path, help="keep start weights, update and lease in this folder")
    options = parser.parse_args()

    identity = Identity(options.key)
    hello = {
        "runId": options.run,
        "name": options.name,
        "client": {"kind": "cli", "version": "python"},
        "operatorToken": None,
    }
    line = Line(options.url, identity, hello, options.transport, options.ca)
    try:
        line.connect()
        files = fetch_run(line)
        while True:
            lease = obtain_lease(line, options.rank)
            try:
                done = take_part(line, lease, options, files, identity.client_id)
                if options.prove:
                    done["proof"] = fetch_proof(line, done["receipt"])
                break
            except LeaseLost as lost:
                say(f"The lease was lost ({lost}); asking for another.")
            except WireError as error:
                if error.code not in LOST:
                    raise
                say(f"The lease was lost ({error}); asking for another.")
        print(json.dumps({"clientId": identity.client_id, **done}))
    finally:
        line.drop()


if __name__ == "__main__":
    try:
        main()
    except (Failure, WireError, NotProven, safetensors.FormatError) as error:
        sys.exit(f"foreign client: {error}")
    except KeyboardInterrupt:
        sys.exit("foreign client: interrupted")
