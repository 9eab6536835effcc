"""Rows to a batch of token ids: prompts, padding to the longest text of the batch, mined negatives side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .data import PairData


@dataclass
class PairCollator:
    """Collates rows of :class:`~cderetrieval.training.data.PairData` for sentence-transformers' trainer.

    Parameters
    ----------
    preprocess_fn
        Texts to token ids: ``model.preprocess``.
    data
        Where the rows come from.
    prompts
        The model's prompts; a data set may have its own.
    """

    preprocess_fn: Callable[[list[str]], Mapping[str, torch.Tensor]]
    data: PairData
    prompts: Mapping[str, str] = field(default_factory=dict)
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"])

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Token ids and masks of queries, documents and mined negatives, whose negatives they are, and row numbers."""
        own = (self.prompts.get("query", ""), self.prompts.get("document", ""))
        prompts = [row["prompts"] or own for row in rows]
        batch = {"label": torch.tensor([row["label"] for row in rows])}
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
        encoded = self.preprocess_fn(texts)
        return {f"{name}_{key}": encoded[key] for key in ("input_ids", "attention_mask")}
