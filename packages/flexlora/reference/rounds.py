"""The experiment of fixtures/inputs.jsonl in PyTorch, float64, on the CPU: the golden values of whole rounds. Not a peer to time
and no library: everything is dense and written out. Of Weft it takes token ids, settings and the rule by which names become
random numbers; model, loss, clipping, optimiser, merge and read-out are its own. README.md says how to run it.
"""
import argparse
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
IGNORED = -100
SKETCH = 128
PROJECTIONS = {"self_attn": ["q_proj", "k_proj", "v_proj", "o_proj"], "mlp": ["gate_proj", "up_proj", "down_proj"]}
torch.set_default_dtype(torch.float64)


# --- safetensors: eight bytes of length, a JSON header, the data ---

def read_safetensors(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise SystemExit(f"{name} is {entry['dtype']}; this script reads F32 alone.")
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(raw[begin:end], "<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.astype(np.float64))
    return tensors


def write_safetensors(path, tensors):
    header, parts, at = {}, [], 0
    for name, values in tensors.items():
        data = np.ascontiguousarray(values).tobytes()
        dtype = {"<f8": "F64", "<f4": "F32"}[values.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


# --- random rows by name: xoroshiro128+ seeded by FNV-1a, as packages/flexlora/src/random.ts defines it ---

M32 = 0xFFFFFFFF


def hash32(text, basis):
    h = basis
    for unit in text:
        h = ((h ^ ord(unit)) * 0x01000193) & M32
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & M32
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & M32
    return h ^ (h >> 16)


def seeded_row(length, *names):
    """Numbers uniform in [-1, 1)."""
    text = "\0".join(map(str, names))
    high0, low0, high1 = (hash32(text, basis) for basis in (0x811C9DC5, 0x9E3779B9, 0x7F4A7C15))
    s0, s1 = high0 << 32 | low0, high1 << 32 | (hash32(text, 0x1F83D9AB) | 1)
    m64 = (1 << 64) - 1

    def draw():
        nonlocal s0, s1
        out = (s0 + s1) & M32
        mixed = s0 ^ s1
        s0 = (s0 << 24 | s0 >> 40) & m64 ^ mixed ^ (mixed << 16) & m64
        s1 = (mixed << 37 | mixed >> 27) & m64
        return out

    values = [2 * ((draw() & (1 << 26) - 1) * 2.0**-26 + (draw() & (1 << 27) - 1) * 2.0**-53) - 1 for _ in range(length)]
    return torch.tensor(values)


# --- the model: a Llama decoder with s * B * A beside its linear maps ---

class Model:
    def __init__(self, folder, dtype=torch.float64):
        self.dtype = dtype
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = {name: w.to(dtype) for name, w in read_safetensors(folder / "model.safetensors").items()}
        layers = range(self.config["num_hidden_layers"])
        self.modules = [
            f"model.layers.{layer}.{part}.{name}" for layer in layers for part in PROJECTIONS for name in PROJECTIONS[part]
        ]

    def shape(self, module):
        return self.weights[f"{module}.weight"].shape

    def norm(self, name, x):
        variance = (x * x).mean(-1, keepdim=True)
        return self.weights[f"{name}.weight"] * x / torch.sqrt(variance + self.config["rms_norm_eps"])

    def rotary(self, x):
        """Rotates halves of x [rows, heads, T, d]."""
        size = self.config["head_dim"]
        rates = self.config["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.outer(torch.arange(x.shape[2], dtype=torch.float64), rates).repeat(1, 2)
        left, right = x.split(size // 2, -1)
        return x * angles.cos().to(self.dtype) + torch.cat([-right, left], -1) * angles.sin().to(self.dtype)

    def logits(self, ids, adapter, frozen):
        c = self.config
        rows, length = ids.shape
        heads, shared = c["num_attention_heads"], c["num_attention_heads"] // c["num_key_value_heads"]

        def linear(module, x):
            scale, a, b = adapter[module]
            return x @ (self.weights[f"{module}.weight"] + frozen[module]).T + scale * (x @ a.T @ b.T)

        def split(x):
            return x.view(rows, length, -1, c["head_dim"]).transpose(1, 2)

        future = torch.full((length, length), -math.inf, dtype=self.dtype).triu(1)
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(c["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            h = self.norm(f"{at}.input_layernorm", x)
            q, k, v = (split(linear(f"{at}.self_attn.{name}", h)) for name in ("q_proj", "k_proj", "v_proj"))
            k, v = (y.repeat_interleave(shared, 1) for y in (self.rotary(k), v))
            scores = self.rotary(q) @ k.transpose(2, 3) / math.sqrt(c["head_dim"]) + future
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, heads * c["head_dim"])
            x = x + linear(f"{at}.self_attn.o_proj", mixed)
            h = self.norm(f"{at}.post_attention_layernorm", x)
            gated = F.silu(linear(f"{at}.mlp.gate_proj", h)) * linear(f"{at}.mlp.up_proj", h)
            x = x + linear(f"{at}.mlp.down_proj", gated)
        return self.norm("model.norm", x) @ self.weights["model.embed_tokens.weight"].T

    def loss(self, batch, adapter, frozen):
        """Mean over the labelled targets of all rows, padded on the right. Returns it and their number. `frozen`: what is added to
        the weight of every module."""
        longest = max(len(row["inputIds"]) for row in batch)
        ids = torch.tensor([row["inputIds"] + [0] * (longest - len(row["inputIds"])) for row in batch])
        labels = torch.tensor([row["labels"] + [IGNORED] * (longest - len(row["labels"])) for row in batch])
        logits, targets = self.logits(ids, adapter, frozen)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, targets, ignore_index=IGNORED), int((targets != IGNORED).sum())


# --- a round ---

def rate(settings, step):
    """Linear warm-up over warmupSteps, then a line down to zero after the last step. Steps count from 1."""
    warm, steps, peak = settings["warmupSteps"], settings["localSteps"], settings["learningRate"]
    if step <= warm:
        return peak * step / (warm + 1)
    return peak * (1 - (step - 1 - warm) / (steps - warm))


def read_out(delta, rank, scale, seed):
    """B = U * sigma / s and A = V^T of the best approximation. Where there is no direction, B = 0 and A a seeded row orthogonal to
    all before it: in round 1 everywhere, later nowhere, as the merged updates have more directions than any client's rank."""
    u, sigma, vt = torch.linalg.svd(delta, full_matrices=False)
    known = min(rank, int((sigma > 1e-12 * sigma[0]).sum())) if sigma[0] > 0 else 0
    rows = list(vt[:known])
    for k in range(known, rank):
        row = seeded_row(delta.shape[1], seed, k)
        for _ in range(2):
            for other in rows:
                row = row - (row @ other) * other
        rows.append(row / row.norm())
    b = torch.zeros(delta.shape[0], rank)
    b[:, :known] = u[:, :known] * sigma[:known] / scale
    return torch.stack(rows), b


def train(model, start, frozen, batches, settings):
    """start: {module: (scale, A, B)}. Returns trained factors, losses and gradient norms by step, and how many targets there were."""
    adapter = {
        module: (scale, *(factor.to(model.dtype, copy=True).requires_grad_() for factor in factors))
        for module, (scale, *factors) in start.items()
    }
    frozen = {module: delta.to(model.dtype) for module, delta in frozen.items()}
    params = [factor for _, *factors in adapter.values() for factor in factors]
    optimiser = torch.optim.AdamW(params, betas=(0.9, 0.999), eps=1e-8, weight_decay=settings["weightDecay"])
    losses, norms, counted = [], [], 0
    for step, batch in enumerate(batches, 1):
        optimiser.param_groups[0]["lr"] = rate(settings, step)
        optimiser.zero_grad()
        loss, targets = model.loss(batch, adapter, frozen)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, settings["maxGradNorm"]).item())
        optimiser.step()
        losses.append(loss.item())
        counted += targets
    trained = {module: (scale, a.detach().double(), b.detach().double()) for module, (scale, a, b) in adapter.items()}
    return trained, losses, norms, counted


def product(factors):
    scale, a, b = factors
    return scale * b @ a


def merge(strategy, current, ends, starts, weights):
    """One dense sum of one matrix."""
    if strategy == "flexlora":
        return sum(w * product(end) for w, end in zip(weights, ends))
    return current + sum(w * (product(end) - product(start)) for w, end, start in zip(weights, ends, starts))


# --- what is kept of a matrix ---

def sketch(delta):
    """SKETCH sums of all elements, each element with a sign of its own in each sum. For any difference D of two matrices the mean
    square of the sums of D is an unbiased estimate of its squared Frobenius norm."""
    flat = delta.reshape(-1).numpy()
    words = np.arange(len(flat) * SKETCH // 32, dtype=np.uint64)
    h = (words + 1) * 0x9E3779B1 & M32
    h = (h ^ h >> 16) * 0x85EBCA6B & M32
    h = (h ^ h >> 13) * 0xC2B2AE35 & M32
    h ^= h >> 16
    bits = (h[:, None] >> np.arange(32, dtype=np.uint64)) & 1
    return flat @ (1 - 2 * bits.reshape(len(flat), SKETCH).astype(np.float64))


def play(model, strategy, settings, clients, batches):
    """All rounds. Returns, a round: what was told of every client, and the merged update of every module."""
    scale = settings["alphaPerRank"]
    state = {module: torch.zeros(model.shape(module)) for module in model.modules}
    rounds = []
    for number in range(1, settings["rounds"] + 1):
        starts, ends, told = [], [], []
        for client in clients:
            start = {}
            for module, delta in state.items():
                rank = min(client["rank"], *delta.shape)
                start[module] = (scale, *read_out(delta, rank, scale, f"{settings['seed']}/{module}"))
            steps = [batches[client["name"], number, step] for step in range(1, settings["localSteps"] + 1)]
            # Beside the frozen tail a client has all of the state, whatever its rank.
            tail = strategy == "flexlora-frozen-tail"
            frozen = {m: delta - product(start[m]) if tail else torch.zeros_like(delta) for m, delta in state.items()}
            end, losses, norms, targets = train(model, start, frozen, steps, settings)
            starts.append(start)
            ends.append(end)
            told.append({**client, "targetTokens": targets, "losses": losses, "gradientNorms": norms})
        total = sum(each["targetTokens"] for each in told)
        weights = [each["targetTokens"] / total for each in told]
        state = {
            module: merge(strategy, state[module], [e[module] for e in ends], [s[module] for s in starts], weights)
            for module in state
        }
        rounds.append(([{**each, "weight": weight} for each, weight in zip(told, weights)], state))
    return rounds


def nearest(rounds):
    """The smallest (sigma_r - sigma_(r+1)) / sigma_r where a rank r cuts: how far from undecided every truncation was."""
    ranks = {each["rank"] for each in rounds[0][0]}
    spectra = [torch.linalg.svdvals(delta) for _, state in rounds for delta in state.values()]
    return min(float(1 - sigma[r] / sigma[r - 1]) for sigma in spectra for r in ranks if r < len(sigma))


def write(folder, strategy, rounds):
    golden = {
        "strategy": strategy,
        "made": f"rounds.py, float64, Python {sys.version.split()[0]}, PyTorch {torch.__version__}, NumPy {np.__version__}",
        "nearestSingularValues": nearest(rounds),
        "rounds": [told for told, _ in rounds],
    }
    (folder / f"{strategy}.json").write_text(json.dumps(golden, indent=1) + "\n")
    tensors = {}
    for number, (_, state) in enumerate(rounds, 1):
        for module, delta in state.items():
            tensors[f"{number}.{module}.sigma"] = torch.linalg.svdvals(delta).numpy().astype("<f8")
            tensors[f"{number}.{module}.sketch"] = sketch(delta).astype("<f8")
            if number == len(rounds) and module.startswith("model.layers.0."):
                tensors[f"{number}.{module}.delta"] = delta.numpy().astype("<f4")
    write_safetensors(folder / f"{strategy}.safetensors", tensors)


def print_drift(rounds, others):
    for number, ((told, state), (told32, state32)) in enumerate(zip(rounds, others), 1):
        loss = max(abs(b / a - 1) for x, y in zip(told, told32) for a, b in zip(x["losses"], y["losses"]))
        delta = max(float((state32[module] - d).norm() / d.norm()) for module, d in state.items())
        print(f"round {number}: float32 is up to {loss:.1e} off in a loss and {delta:.1e} in a merged matrix")


def main():
    parser = argparse.ArgumentParser(description="Golden values of whole rounds.")
    parser.add_argument("--strategy", required=True, choices=["flexlora", "flexlora-carry", "flexlora-frozen-tail"])
    parser.add_argument("--model", type=Path, default=HERE / "../../../assets/models/stories260K")
    parser.add_argument("--inputs", type=Path, default=HERE / "fixtures/inputs.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "fixtures")
    parser.add_argument("--drift", action="store_true", help="write nothing; train in float32 too and print how far that goes")
    parser.add_argument("--max-grad-norm", type=float, help="in place of the inputs' own, with --drift")
    options = parser.parse_args()
    if options.max_grad_norm is not None and not options.drift:
        parser.error("--max-grad-norm is for --drift; golden values follow the inputs.")

    lines = [json.loads(line) for line in options.inputs.read_text().splitlines()]
    settings, clients = lines[0]["settings"], lines[0]["clients"]
    if settings["schedule"] != "linear":
        parser.error(f"This script knows the linear schedule, not {settings['schedule']}.")
    if options.max_grad_norm is not None:
        settings["maxGradNorm"] = options.max_grad_norm
    batches = {(line["client"], line["round"], line["step"]): line["rows"] for line in lines[1:]}
    rounds = play(Model(options.model), options.strategy, settings, clients, batches)
    if options.drift:
        print_drift(rounds, play(Model(options.model, torch.float32), options.strategy, settings, clients, batches))
    else:
        write(options.out, options.strategy, rounds)


if __name__ == "__main__":
    main()
