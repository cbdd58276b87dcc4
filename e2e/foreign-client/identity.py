"""A volunteer's key, and the hashes of the wire. The key is a file, so that a client started again is the same volunteer."""

import base64
import hashlib
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def canonical(value) -> bytes:
    """Canonical JSON of the README: keys sorted by UTF-16 code units, no white space, numbers as ECMAScript writes them."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return b"{" + b",".join(_text(key) + b":" + canonical(value[key]) for key in keys) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(canonical(item) for item in value) + b"]"
    return _text(value)


def _text(value) -> bytes:
    if isinstance(value, float):
        # What is hashed here holds whole numbers and plain fractions; others Python writes differently.
        text = str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
        if "e" in text:
            raise ValueError(f"{value} has no canonical form here.")
        return text.encode()
    return json.dumps(value, ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Identity:
    """An ECDSA key on P-256."""

    def __init__(self, path: Path):
        if path.exists():
            self._key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            pem = self._key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
        numbers = self._key.public_key().public_numbers()
        self.public_key = {
            "kty": "EC",
            "crv": "P-256",
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }
        self.client_id = sha256(canonical(self.public_key))[:24]

    def answer(self, challenge: str) -> str:
        """The signature that volunteer:prove takes: r and s of 32 bytes each, base64url."""
        signature = self._key.sign(f"weft:{challenge}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        return base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
