"""Rows to a batch of token ids: prompts, padding to the longest text of the batch, mined negatives side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .data import PairData

_KEYS = ("input_ids", "attention_mask")


@dataclass
class PairCollator:
    """Collates rows of `data` for sentence-transformers' trainer.

    `preprocess_fn` turns texts into token ids; `prompts` are the model's, of which a data set may have its own. The
    contextual loss takes negatives as one column that says whose each is; sentence-transformers' losses take one column
    for each rank of negative or, where rows have different numbers of them, one column of them all. `tasks` tells the
    model which texts are queries; `scored` makes labels (b, 1 + n) of the teacher's scores.
    """

    preprocess_fn: Callable[..., Mapping[str, torch.Tensor]]
    data: PairData
    prompts: Mapping[str, str] = field(default_factory=dict)
    contextual: bool = False
    tasks: bool = False
    scored: bool = False
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"])

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Token ids and masks of queries, documents and mined negatives; row numbers; labels."""
        own = (self.prompts.get("query", ""), self.prompts.get("document", ""))
        prompts = [row["prompts"] or own for row in rows]
        owners = [place for place, row in enumerate(rows) for _ in row["negatives"]]
        texts = {
            "query": [prompt[0] + row["query"] for prompt, row in zip(prompts, rows, strict=True)],
            "document": [prompt[1] + row["document"] for prompt, row in zip(prompts, rows, strict=True)],
            "negative": [prompts[place][1] + text for place, row in enumerate(rows) for text in row["negatives"]],
        }
        numbers = [row["label"] for row in rows]
        batch: dict[str, Any] = {"label": torch.tensor(numbers), "row": torch.tensor(numbers)}
        if self.scored:
            batch["label"] = torch.tensor([self.data.scores(number) for number in numbers], dtype=torch.float32)
        for name in ("query", "document", "negative") if owners else ("query", "document"):
            task = "query" if name == "query" else "document"
            encoded = self.preprocess_fn(texts[name], **({"task": task} if self.tasks else {}))
            if name == "negative" and not self.contextual and len({len(row["negatives"]) for row in rows}) == 1:
                columns = _ranked(encoded, len(rows))
            else:
                columns = {name: {key: encoded[key] for key in _KEYS}}
            for column, tensors in columns.items():
                batch |= {f"{column}_{key}": tensor for key, tensor in tensors.items()}
                batch |= {f"{column}_task": task} if self.tasks else {}
        if owners and self.contextual:
            positions = [position for number in numbers for position in self.data.negatives_of(number)]
            batch |= {"negative_owner": torch.tensor(owners), "negative_position": torch.tensor(positions)}
        return batch


def _ranked(encoded: Mapping[str, torch.Tensor], rows: int) -> dict[str, dict[str, torch.Tensor]]:
    """One column for each rank of negative, all of `rows` texts."""
    ranks = {key: encoded[key].view(rows, -1, encoded[key].shape[1]).unbind(1) for key in _KEYS}
    count = len(ranks["input_ids"])
    return {f"negative{rank}": {key: ranks[key][rank] for key in _KEYS} for rank in range(count)}
