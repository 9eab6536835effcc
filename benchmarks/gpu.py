"""Encoding and training on a GPU in bfloat16: tokens a second, and how much of the GPU they use.

    encode  full batches of texts of one length with a context of 512 documents, cached (two forms) and joint, against
            transformers' own BERT with its sdpa attention and no context
    train   a step of 512 pairs with 64 context documents, cached and joint, with and without gradient caching, against
            a bi-encoder

MFU is the model's arithmetic (`planning.Shape.flops`; a training step counts three times its way forward, and not what
gradient caching computes again) over what a product of two large matrices reaches on the same GPU in the same run.
Random weights and token ids without padding; the second half of each form's rounds counts.

    python benchmarks/gpu.py [--quick] [--device cuda]

Where there is no GPU it says so and writes nothing; `--quick --device cpu` shows that it runs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import Times, bar, finish, interleaved, ratio
from context_cost import CONTEXT, SHAPES, embedders
from planning import Shape
from training import DOCUMENT_TOKENS, FORMS, QUERY_TOKENS, build_step

from cderetrieval.runtime import autocast

LENGTHS = (64, 128, 512)
FORWARD_AND_BACK = 3


def finished(call: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """A call that returns when the device is done."""

    def run() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def peak(device: torch.device, size: int) -> float:
    """FLOP a second of a product of two square matrices in bfloat16, best of ten."""
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    times = interleaved({"product": finished(lambda: a @ b, device)}, 10)
    return float(2 * size**3 / min(times["product"]))


def timed(calls: dict[str, Callable[[], Any]], device: torch.device, repeats: int) -> Times:
    """Seconds of each call, in turn, after as many rounds in which the GPU finds its speed."""
    found = interleaved({name: finished(call, device) for name, call in calls.items()}, 2 * repeats)
    return {name: seconds[repeats:] for name, seconds in found.items()}


def used_mb(call: Callable[[], Any], device: torch.device) -> float | None:
    """Memory of the GPU that a call adds at its peak; None on a processor, whose memory is not counted."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    finished(call, device)()
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)


def encoding(name: str, length: int, tokens: int, device: torch.device, repeats: int, top: float) -> list[dict]:
    """Rows of one shape and length: plain and cached texts in batches of `tokens`, joint ones with their context."""
    width, layers, heads, _ = SHAPES[name]
    shape = Shape(width, layers)
    embed = embedders(width, layers, heads, device)
    flops = {
        "plain": shape.flops(length),
        "gated": shape.flops(length, CONTEXT),
        "shared": shape.flops(length, CONTEXT),
        "joint": shape.flops(length, CONTEXT, joint=True),
    }
    many, few = max(1, tokens // length), max(1, tokens // (length + CONTEXT))
    texts = {form: few if form == "joint" else many for form in flops}
    ids = {form: torch.randint(0, 1_000, (count, length), device=device) for form, count in texts.items()}
    with torch.inference_mode(), autocast(device, "bfloat16"):
        times = timed({form: lambda form=form: embed[form](ids[form]) for form in flops}, device, repeats)
    per_text = {form: [second / texts[form] for second in seconds] for form, seconds in times.items()}
    return [
        {
            "what": "encode",
            "shape": name,
            "tokens": length,
            "form": form,
            "tokens a second": round(length / statistics.median(seconds)),
            "MFU": round(flops[form] / statistics.median(seconds) / top, 4),
            "time / plain": ratio(per_text, form, "plain"),
            "raw": seconds,
        }
        for form, seconds in per_text.items()
    ]


def training(batch: int, context: int, device: torch.device, repeats: int, top: float) -> list[dict]:
    """Rows of a training step of each form, of MiniLM's shape."""
    shape = Shape(*SHAPES["MiniLM"][:2])
    tokens = batch * (QUERY_TOKENS + DOCUMENT_TOKENS)
    steps = {
        form: build_step(form, batch, context, device=str(device), dtype="bfloat16", chunk_tokens=tokens // 8)
        for form in FORMS
    }
    times = timed(steps, device, repeats)
    rows = []
    for form, seconds in times.items():
        attended, joint = (0 if form == "biencoder" else context), form.startswith("joint")
        texts = [shape.flops(length, attended, joint=joint) for length in (QUERY_TOKENS, DOCUMENT_TOKENS)]
        first_stage = attended * shape.flops(DOCUMENT_TOKENS) + (0 if joint else shape.flops(attended))
        flops = FORWARD_AND_BACK * (batch * sum(texts) + first_stage)
        rows.append(
            {
                "what": "train",
                "shape": "MiniLM",
                "form": form,
                "tokens a second": round(tokens / statistics.median(seconds)),
                "MFU": round(flops / statistics.median(seconds) / top, 4),
                "time / biencoder": ratio(times, form, "biencoder"),
                "GPU memory, MB": used_mb(steps[form], device),
                "raw": seconds,
            }
        )
    cached = dict(zip(("cache", "none"), (times[form] for form in FORMS[1:3]), strict=True))
    rows[1]["time / without gradient cache"] = ratio(cached, "cache", "none")
    return rows


def bars(rows: list[dict]) -> list[dict]:
    """What the project asks of training, on a GPU too, and of encoding with a cached context."""
    found = {row["form"]: row for row in rows if row["what"] == "train"}
    step = found["cached context"]
    asked = [
        bar(
            "a step with gradient caching / without", step["time / without gradient cache"]["median"], 1.5, at_most=True
        ),
        bar("a step in a cached context / bi-encoder", step["time / biencoder"]["median"], 1.3, at_most=True),
    ]
    if step["GPU memory, MB"] is not None:
        whole = found["cached context, no gradient cache"]["GPU memory, MB"]
        asked.append(bar("its memory / without gradient caching", step["GPU memory, MB"] / whole, 1 / 8, at_most=True))
    limits = {name: shape[3] for name, shape in SHAPES.items()}
    for row in rows:
        if row.get("form") == "gated":
            label = f"encode, {row['shape']}, {row['tokens']} tokens, gated / plain"
            asked.append(bar(label, row["time / plain"]["median"], limits[row["shape"]], at_most=True))
    return asked


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats, no JSON: does it run?")
    parser.add_argument("--device", help="default: cuda, where there is one")
    given = parser.parse_args()
    if given.device is None and not torch.cuda.is_available():
        print("no GPU here: nothing is measured (`--quick --device cpu` shows that it runs)")
        return
    device = torch.device(given.device or "cuda")
    torch.manual_seed(0)
    quick = given.quick
    top = peak(device, 512 if quick else 8_192)
    tokens, repeats = (1_024, 2) if quick else (131_072, 10)
    rows: list[dict[str, Any]] = []
    for name in ("MiniLM",) if quick else SHAPES:
        for length in LENGTHS[:1] if quick else LENGTHS:
            rows += encoding(name, length, tokens, device, repeats, top)
    rows += training(*((16, 8) if quick else (512, 64)), device, repeats, top)
    settings = {"device": str(device), "peak FLOP a second": top, "context": CONTEXT, "batch tokens": tokens}
    if device.type == "cuda":
        settings["gpu"] = torch.cuda.get_device_name(device)
    finish("gpu", settings=settings, rows=rows, bars=bars(rows), quick=quick)


if __name__ == "__main__":
    main()
