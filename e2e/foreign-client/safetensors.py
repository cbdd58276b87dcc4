"""The safetensors format, float32 only: read start weights, write an update. Standard library alone; not a general codec."""

import json
import struct
from array import array
from typing import NamedTuple


class Tensor(NamedTuple):
    shape: list[int]
    values: array  # 'f', row-major


class FormatError(Exception):
    pass


def read(blob: bytes) -> dict[str, Tensor]:
    """Tensors by name. Raises FormatError where the file is not float32 safetensors."""
    if len(blob) < 8:
        raise FormatError("The file is shorter than its header's length.")
    (length,) = struct.unpack_from("<Q", blob)
    data = 8 + length
    if data > len(blob):
        raise FormatError(f"The header is said to take {length} bytes; the file has {len(blob)}.")
    tensors = {}
    for name, entry in json.loads(blob[8:data]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise FormatError(f"{name} is {entry['dtype']}, not F32.")
        begin, end = entry["data_offsets"]
        elements = 1
        for size in entry["shape"]:
            elements *= size
        if end - begin != 4 * elements or data + end > len(blob):
            raise FormatError(f"{name} does not lie where the header says.")
        count = struct.unpack_from(f"<{elements}f", blob, data + begin)
        tensors[name] = Tensor(entry["shape"], array("f", count))
    return tensors


def write(tensors: dict[str, Tensor]) -> bytes:
    """The file; its header is padded with spaces so that the data starts at a multiple of 8."""
    header, parts, at = {}, [], 0
    for name, (shape, values) in tensors.items():
        part = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
