"""Rows to a batch of token ids: prompts, padding to the longest text of the batch, mined negatives side by side.

The contextual loss takes negatives as one column that says whose each is; sentence-transformers' losses take one column
for each rank of negative, or, where rows have different numbers of them, one column of them all.
"""

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

    `preprocess_fn` turns texts into token ids; `prompts` are the model's, of which a data set may have its own.
    """

    preprocess_fn: Callable[..., Mapping[str, torch.Tensor]]
    data: PairData
    prompts: Mapping[str, str] = field(default_factory=dict)
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"])

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Token ids and masks of queries, documents and mined negatives, whose negatives they are, and row numbers."""
        own = (self.prompts.get("query", ""), self.prompts.get("document", ""))
        prompts = [row["prompts"] or own for row in rows]
        numbers = torch.tensor([row["label"] for row in rows])
        batch = {"label": numbers, "row": numbers}
        batch |= self._column("query", [p[0] + row["query"] for p, row in zip(prompts, rows, strict=True)])
        batch |= self._column("document", [p[1] + row["document"] for p, row in zip(prompts, rows, strict=True)])
        owners = [place for place, row in enumerate(rows) for _ in row["negatives"]]
        if owners:
            texts = [text for row in rows for text in row["negatives"]]
            batch |= self._column("negative", [prompts[k][1] + text for k, text in zip(owners, texts, strict=True)])
            positions = [position for row in rows for position in self.data.negatives_of(row["label"])]
            batch |= {"negative_owner": torch.tensor(owners), "negative_position": torch.tensor(positions)}
        return batch

    def _column(self, name: str, texts: list[str]) -> dict[str, torch.Tensor]:
        encoded = self._encode(name, texts)
        return {f"{name}_{key}": encoded[key] for key in _KEYS}

    def _encode(self, name: str, texts: list[str]) -> Mapping[str, torch.Tensor]:
        del name
        return self.preprocess_fn(texts)


@dataclass
class ColumnCollator(PairCollator):
    """The same for sentence-transformers' own losses.

    `tasks` tells the model which texts are queries; `scored` makes labels (b, 1 + n) of the teacher's scores.
    """

    tasks: bool = False
    scored: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Token ids and masks of queries, documents and mined negatives; row numbers; labels of a distillation."""
        batch: dict[str, Any] = super().__call__(rows)
        owners = batch.pop("negative_owner", None)
        batch.pop("negative_position", None)
        if self.scored:
            scores = [self.data.scores(row["label"]) for row in rows]
            batch["label"] = torch.tensor(scores, dtype=torch.float32)
        if owners is not None and len({len(row["negatives"]) for row in rows}) == 1:
            batch = _ranked(batch, len(rows))
        if self.tasks:
            columns = [key.removesuffix("_input_ids") for key in batch if key.endswith("_input_ids")]
            batch |= {f"{name}_task": _task(name) for name in columns}
        return batch

    def _encode(self, name: str, texts: list[str]) -> Mapping[str, torch.Tensor]:
        return self.preprocess_fn(texts, **({"task": _task(name)} if self.tasks else {}))


def _task(column: str) -> str:
    return "query" if column == "query" else "document"


def _ranked(batch: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """One column for each rank of negative, all of `rows` texts."""
    columns: dict[str, torch.Tensor] = {}
    for key in _KEYS:
        ids = batch.pop(f"negative_{key}")
        ranks = ids.view(rows, -1, ids.shape[1]).unbind(1)
        columns |= {f"negative{rank}_{key}": column for rank, column in enumerate(ranks)}
    return {**batch, **columns}
