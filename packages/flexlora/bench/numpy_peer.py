"""The same sums in NumPy, timed in a process of its own: a line of JSON asks, a line of JSON answers.

{"op": "about"}                                              -> {"numpy": ..., "openblas": true, "threads": ...}
{"op": "clients", "file": ..., "out": ..., "in": ..., "ranks": [...]}   float32 B [out, r] and A [r, in] of each, in order
{"op": "stacked" | "dense", "keep": K}                       -> {"ms": ..., "sigma": [...]}
{"op": "model", "shapes": [[out, in], ...], "ranks": [...], "keep": K}  -> {"ms": ..., "routes": [...]}
"""
import json
import os
import sys
import time

import numpy as np


def widened(clients):
    bs, as_ = clients
    left = np.concatenate(bs, axis=1).astype(np.float64)
    right = np.concatenate(as_, axis=0).astype(np.float64)
    return left, right


def stacked(clients, keep):
    """QR of both stacks and the SVD of the core."""
    left, right = widened(clients)
    ql, rl = np.linalg.qr(left)
    qr, rr = np.linalg.qr(right.T)
    u, sigma, vt = np.linalg.svd(rl @ rr.T)
    return ql @ u[:, :keep], sigma, vt[:keep] @ qr.T


def dense(clients, keep):
    """The sum itself and its SVD, as FlexLoRA's published code does it, in one product."""
    left, right = widened(clients)
    u, sigma, vt = np.linalg.svd(left @ right, full_matrices=False)
    return u[:, :keep], sigma, vt[:keep]


ROUTES = {"stacked": stacked, "dense": dense}


def timed(work):
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1e3, result


def draw(rng, out, inner, ranks):
    bs = [rng.random((out, rank), dtype=np.float32) - np.float32(0.5) for rank in ranks]
    as_ = [rng.random((rank, inner), dtype=np.float32) - np.float32(0.5) for rank in ranks]
    return bs, as_


def model(shapes, ranks, keep):
    """All matrices by the faster route of each shape, which a first try finds; drawing numbers is not counted."""
    rng = np.random.default_rng(0)
    best, total = {}, 0.0
    for out, inner in shapes:
        clients = draw(rng, out, inner, ranks)
        if (out, inner) not in best:
            times = {name: timed(lambda r=route: r(clients, keep))[0] for name, route in ROUTES.items()}
            best[out, inner] = min(times, key=times.get)
        ms, _ = timed(lambda: ROUTES[best[out, inner]](clients, keep))
        total += ms
    return {"ms": total, "routes": [f"{out}x{inner}: {name}" for (out, inner), name in best.items()]}


def about():
    with open("/proc/self/maps", encoding="utf8") as maps:
        openblas = "openblas" in maps.read()
    return {"numpy": np.__version__, "openblas": openblas, "threads": os.environ.get("OPENBLAS_NUM_THREADS")}


def main():
    clients = None
    for line in sys.stdin:
        ask = json.loads(line)
        op = ask["op"]
        if op == "about":
            answer = about()
        elif op == "clients":
            data = np.fromfile(ask["file"], dtype=np.float32)
            bs, as_, at = [], [], 0
            for rank in ask["ranks"]:
                bs.append(data[at : at + ask["out"] * rank].reshape(ask["out"], rank))
                at += ask["out"] * rank
                as_.append(data[at : at + rank * ask["in"]].reshape(rank, ask["in"]))
                at += rank * ask["in"]
            clients, answer = (bs, as_), {}
        elif op == "model":
            answer = model(ask["shapes"], ask["ranks"], ask["keep"])
        else:
            ms, (_, sigma, _) = timed(lambda: ROUTES[op](clients, ask["keep"]))
            answer = {"ms": ms, "sigma": sigma[: ask["keep"]].tolist()}
        print(json.dumps(answer), flush=True)


main()
