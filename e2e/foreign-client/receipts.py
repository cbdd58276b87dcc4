"""Receipts and proofs of inclusion, checked as the README's "Receipts and proofs" says. Asks nobody anything."""

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from identity import canonical, sha256


class NotProven(Exception):
    pass


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_signature(prefix: str, signed: dict, receipt_key: dict) -> None:
    """Raises NotProven unless `signed` carries the signature of this key."""
    key = receipt_key["publicKey"]
    if sha256(canonical(key))[:24] != receipt_key["keyId"] or signed["keyId"] != receipt_key["keyId"]:
        raise NotProven("The key's id is not made from the key, or another key signed.")
    x, y = (int.from_bytes(_bytes(key[name]), "big") for name in ("x", "y"))
    signature = _bytes(signed["signature"])
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    unsigned = {name: value for name, value in signed.items() if name != "signature"}
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    try:
        public.verify(encode_dss_signature(r, s), prefix.encode() + canonical(unsigned), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as invalid:
        raise NotProven(f"The signature over {prefix}… does not verify.") from invalid


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def check_inclusion(proof: dict, receipt: dict, receipt_key: dict) -> None:
    """Raises NotProven unless the round's signed record holds this receipt (RFC 9162, section 2.1.3.2)."""
    head = proof["head"]
    if head["runId"] != receipt["runId"] or head["round"] != receipt["round"]:
        raise NotProven("The proof is of another round.")
    check_signature("weft-round:", head, receipt_key)
    leaf = canonical({"outcome": proof["outcome"], "receipt": receipt})
    at, last = proof["index"], head["size"] - 1
    reached = hashlib.sha256(b"\x00" + leaf).digest()
    if at > last:
        raise NotProven(f"Leaf {at} lies beyond a tree of {head['size']}.")
    for beside in map(bytes.fromhex, proof["path"]):
        if last == 0:
            raise NotProven("The path is longer than the tree is high.")
        if at & 1 or at == last:
            reached = _node(beside, reached)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            reached = _node(reached, beside)
        at, last = at >> 1, last >> 1
    if last != 0 or reached.hex() != head["root"]:
        raise NotProven("The path does not lead to the signed root.")
