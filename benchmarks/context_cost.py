"""What a context of 512 documents costs a text: cached (two forms) and joint, against the encoder without context.

One thread, random token ids without padding. The peer is transformers' own BERT with its sdpa attention and a mean
pool. Texts come alone, as a query does, and in batches as the encoder makes them (`TOKENS` tokens). The floor is the
arithmetic: to 12 h^2 multiplications a token and layer, attention to J vectors adds 2 J h.

    python benchmarks/context_cost.py [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from common import Times, arguments, bar, finish, interleaved, ratio
from transformers import AutoModel, BertConfig

from cderetrieval.models.config import ContextualConfig
from cderetrieval.models.stages import SecondStage, mean_pool
from cderetrieval.runtime import TOKEN_BUDGET

CONTEXT = 512
LENGTHS = (16, 64, 128)
TOKENS = TOKEN_BUDGET["cpu"]
# Joint attention is slow enough to be timed on few texts.
JOINT_TEXTS = 2
SHAPES = {"MiniLM": (384, 6, 12, 1.5), "BERT-base": (768, 12, 12, 1.25)}


def backbone(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Give a BERT's configuration; its vocabulary is small, as looking up a token costs the same in any."""
    return {
        "model_type": "bert",
        "vocab_size": 1_000,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 2 * CONTEXT,
    }


def second_stage(settings: dict[str, Any], attention: str, form: str, weights: dict[str, torch.Tensor]) -> SecondStage:
    """Build a second stage with these weights; its gates are open, so that nothing can be skipped."""
    config = ContextualConfig(
        backbone=settings, attention=attention, cached_form=form, context_positions="separate", soft_prompt_tokens=0,
        head="none",
    )  # fmt: skip
    stage = SecondStage(config).eval()
    stage.backbone.load_state_dict(weights)
    if hasattr(stage, "gates"):
        torch.nn.init.constant_(stage.gates, 0.5)
    return stage


def embedders(
    width: int, layers: int, heads: int, device: torch.device | None = None
) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Token ids (b, t) to vectors, with and without a context, all of the same weights."""
    settings = backbone(width, layers, heads)
    config = BertConfig(**{key: value for key, value in settings.items() if key != "model_type"})
    plain = AutoModel.from_config(config, attn_implementation="sdpa", add_pooling_layer=False).eval().to(device)
    weights = plain.state_dict()
    context = torch.randn(CONTEXT, width, device=device) * 0.5
    stages = {name: second_stage(settings, "cached", name, weights).to(device) for name in ("gated", "shared")}
    caches = {name: stage.context_cache(context) for name, stage in stages.items()}
    joint = second_stage(settings, "joint", "gated", weights).to(device)

    def without(ids: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(ids)
        return mean_pool(plain(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def cached(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda ids: stages[name](ids, torch.ones_like(ids), context_cache=caches[name])

    def jointly(ids: torch.Tensor) -> torch.Tensor:
        return joint(ids, torch.ones_like(ids), dataset_embeddings=context)

    return {"plain": without, "gated": cached("gated"), "shared": cached("shared"), "joint": jointly}


def measure(embed: dict[str, Callable], length: int, texts: int, repeats: int) -> dict[str, Any]:
    """Compare the forms at one length; `texts` in a batch."""
    ids = torch.randint(0, 1_000, (texts, length))
    few = ids[:JOINT_TEXTS]
    cheap = {name: lambda call=embed[name]: call(ids) for name in ("plain", "gated", "shared")}
    # Two threads of this process never run: CPU time leaves out what other processes took from the one there is.
    times = interleaved(cheap, repeats, clock=time.process_time)
    pair = {"plain": lambda: embed["plain"](few), "joint": lambda: embed["joint"](few)}
    slow: Times = interleaved(pair, max(3, repeats // 3), clock=time.process_time)
    return {
        "tokens": length,
        "texts": texts,
        "plain_us_per_text": 1e6 * sorted(times["plain"])[repeats // 2] / texts,
        "gated": ratio(times, "gated", "plain"),
        "shared": ratio(times, "shared", "plain"),
        "joint": ratio(slow, "joint", "plain"),
        "raw": {"batch": times, "joint": slow},
    }


def floor(width: int) -> float:
    """Arithmetic of a token with context over that without: what no implementation can beat."""
    return round(1 + 4 * CONTEXT * width / (24 * width**2), 3)


def main() -> None:
    """Measure both shapes at all lengths."""
    quick = arguments(__doc__ or "").quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, bars = [], []
    with torch.inference_mode():
        for name, (width, layers, heads, most) in SHAPES.items():
            if quick and name != "MiniLM":
                continue
            embed = embedders(width, layers, heads)
            for length in LENGTHS:
                for texts in (1,) if quick else (1, TOKENS // length):
                    row = measure(embed, length, texts, 3 if quick else 15 if name == "MiniLM" else 7)
                    rows.append({"shape": name, "floor": floor(width), **row})
                    label = f"{name}, {length} tokens, {texts} texts, gated"
                    bars.append(bar(label, row["gated"]["median"], most, at_most=True))
    settings = {"context": CONTEXT, "threads": 1, "shapes": SHAPES, "clock": "CPU time of the process"}
    finish("context_cost", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
