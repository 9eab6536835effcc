"""A document context in training: the module of :mod:`cderetrieval.models.trained_context` in torch.

Only the module learns; vectors of texts are those of the frozen base. A batch is some documents with all of their
passages, and a query of each passage. The loss is InfoNCE twice: among the passages of the query's own document
(in-sequence), and among those of all documents (in-batch), as InSeNT has it (arXiv 2505.24782). In some documents the
context is null, in some another document's: there it must not help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, normalize, scaled_dot_product_attention

from ...errors import ConfigError
from ...files import as_path, atomic_write
from ...models.card import document_card
from ...models.load import load
from ...models.trained_context import FILE, TrainedContext, TrainedContextConfig, plain_encoder, probe_of, sharpness
from ..losses import MASKED
from ..recipes import Recipe
from .base import Family, known_settings

if TYPE_CHECKING:
    from ..documents import EmbeddedDocuments
    from ..prepare import Prepared

# What the mixture starts as, near the form that is not trained: weights of lead, mean and attention.
START = (0.4, 0.2, 0.05)


class ContextModule(nn.Module):
    """The module that learns; `probe` are the base's vectors of some texts, which tell it from other models."""

    probe: Tensor

    def __init__(self, shape: TrainedContextConfig, probe: np.ndarray) -> None:
        super().__init__()
        h = shape.width
        self.shape = shape
        self.query, self.key = nn.Linear(h, h), nn.Linear(h, h)
        self.value, self.out = nn.Linear(h, h, bias=False), nn.Linear(h, h, bias=False)
        self.kind = nn.Parameter(torch.zeros(2, h))
        self.first, self.second = nn.Linear(4 * h, shape.hidden), nn.Linear(shape.hidden, h + 3)
        self.register_buffer("probe", torch.as_tensor(probe, dtype=torch.float32), persistent=False)
        for identity in (self.value, self.out):
            nn.init.eye_(identity.weight)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        with torch.no_grad():
            self.second.bias[h:] = torch.tensor(START)
        # What sentence-transformers' trainer asks of a model.
        self.model_card_data = SimpleNamespace(model_id=None)  # noqa: V101

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.kind.device

    def forward(self, passages: Tensor, present: Tensor, lead: Tensor, source: Tensor) -> Tensor:
        """Vectors (b, n, h) of passages (b, n, h), of which some are `present` (b, n), under their leads (b, h).

        `source` (b,) says whose lead and passages each document reads.
        """
        read, lead, there = passages[source], lead[source, None], present[source]
        mean = normalize((read * there[..., None]).sum(dim=1, keepdim=True), dim=-1)
        found = self._attention(passages, torch.cat([lead, read], dim=1), there)
        both = lead.expand_as(passages), mean.expand_as(passages)
        out = self.second(gelu(self.first(torch.cat([passages, *both, found], dim=-1))))
        weights, rest = out[..., -3:], out[..., :-3]
        mixed = passages + weights[..., :1] * both[0] + weights[..., 1:2] * both[1] + weights[..., 2:] * found + rest
        return normalize(mixed, dim=-1)

    def _attention(self, passages: Tensor, read: Tensor, there: Tensor) -> Tensor:
        kind = torch.cat([self.kind[:1], self.kind[1:].expand(read.shape[1] - 1, -1)])
        query, key, value = self.query(passages), self.key(read + kind), self.value(read)
        query, key, value = (one.unflatten(-1, (self.shape.heads, -1)).transpose(1, 2) for one in (query, key, value))
        mask = torch.cat([torch.ones_like(there[:, :1]), there], dim=1)[:, None, None]
        found = scaled_dot_product_attention(query, key, value, mask, scale=sharpness(self.shape))
        return cast(Tensor, self.out(found.transpose(1, 2).flatten(2)))

    def trained(self) -> TrainedContext:
        """As it is used."""
        tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in self.state_dict().items()}
        return TrainedContext(self.shape, tensors, self.probe.cpu().numpy())


class DocumentCollator:
    """Rows to a batch: vectors of the documents' passages and leads, a query of each passage, and whose context it is.

    Everything that is drawn follows from the rows and the seed, so a resumed run draws it again.
    """

    def __init__(self, recipe: Recipe, prepared: EmbeddedDocuments) -> None:
        self.valid_label_columns = ["label"]
        self._recipe, self._data, self._vectors = recipe, prepared.data, prepared.vectors

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Columns as the loss takes them."""
        numbers = [row["label"] for row in rows]
        draw = np.random.default_rng([self._recipe.seed, *numbers])
        passages = [self._some(self._data.passages_of(number), draw) for number in numbers]
        every = np.concatenate(passages)
        queries = np.array([draw.choice(self._data.queries_of(passage)) for passage in every])
        documents = np.repeat(np.arange(len(rows)), [len(some) for some in passages])
        places = np.concatenate([np.arange(len(some)) for some in passages])
        filled = torch.zeros(len(rows), int(places.max()) + 1, self._vectors.document.shape[1])
        present = torch.zeros(filled.shape[:2], dtype=torch.bool)
        filled[documents, places], present[documents, places] = _tensor(self._vectors.document, every), True
        chance = draw.random(len(rows))
        null = self._recipe.null_probability
        source = np.arange(len(rows))
        swapped = (null <= chance) & (chance < null + self._recipe.other_probability)
        source[swapped] = np.roll(source, 1)[swapped]
        return {
            "label": torch.tensor(numbers),
            "row": torch.tensor(numbers),
            "query_sentence_embedding": _tensor(self._vectors.query, queries),
            "query_document": torch.from_numpy(documents),
            "query_section": torch.from_numpy(self._data.section[every].astype(np.int64)),
            "query_by_heading": torch.from_numpy(self._data.by_heading[queries] > 0),
            "document_sentence_embedding": filled,
            "document_present": present,
            "lead_sentence_embedding": _tensor(self._vectors.lead, np.array(numbers)),
            "lead_source": torch.from_numpy(source),
            "lead_null": torch.from_numpy(chance < null),
        }

    def _some(self, passages: range, draw: np.random.Generator) -> np.ndarray:
        """At most so many passages in a row as the recipe has of a context."""
        most = self._recipe.context_size
        first = int(draw.integers(max(1, len(passages) - most + 1)))
        return np.array(passages[first : first + most])


def _tensor(vectors: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(vectors[rows], dtype=np.float32))


class DocumentContextLoss(nn.Module):
    """In-sequence and in-batch InfoNCE of queries against passages in their context."""

    def __init__(self, model: ContextModule, recipe: Recipe) -> None:
        super().__init__()
        self.model, self._recipe = model, recipe
        self._sums: dict[str, float] = {}
        self._steps = 0

    def forward(self, features: Sequence[Mapping[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Loss of what :class:`DocumentCollator` makes."""
        queries, documents, leads = features
        passages, present = documents["sentence_embedding"], documents["present"]
        made = self.model(passages, present, leads["sentence_embedding"], leads["source"])
        made = torch.where(leads["null"][:, None, None], passages, made)
        asked, owner = queries["sentence_embedding"], queries["document"]
        scores = asked @ made[present].T * self._recipe.scale
        own, target = owner[:, None] == owner, torch.arange(len(owner), device=scores.device)
        # All passages of a section answer a query by its heading.
        mask = own & (queries["section"][:, None] == queries["section"]) & queries["by_heading"][:, None]
        false = torch.zeros_like(own)
        if self._recipe.filter == "stored":
            false = self._false_negatives(queries, passages, present, leads["sentence_embedding"]) & ~own
        mask = (mask | false).scatter(1, target[:, None], False)
        inside = scores.masked_fill(mask | ~own, MASKED)
        batch = scores.masked_fill(mask, MASKED)
        share = self._recipe.in_sequence
        loss = share * cross_entropy(inside, target) + (1 - share) * cross_entropy(batch, target)
        self._count(
            accuracy=(batch.argmax(dim=1) == target).float().mean(),
            accuracy_in_sequence=(inside.argmax(dim=1) == target).float().mean(),
            masked_false_negatives=false.sum() / len(owner),
            passages=present.sum(),
        )
        return loss

    def _false_negatives(
        self, queries: Mapping[str, Tensor], passages: Tensor, present: Tensor, lead: Tensor
    ) -> Tensor:
        """Passages (q, p) that the base, with a sum for context, scores as high as a query's own."""
        mean = normalize((passages * present[..., None]).sum(dim=1, keepdim=True), dim=-1)
        plain = normalize(passages + START[0] * lead[:, None] + START[1] * mean, dim=-1)[present]
        scores = queries["sentence_embedding"] @ plain.T
        return scores >= scores.diagonal()[:, None] - self._recipe.filter_margin

    def drain(self) -> dict[str, float]:
        """Means over the steps since the last call."""
        means = {name: total / max(1, self._steps) for name, total in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means

    def _count(self, **values: Tensor) -> None:
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)


class DocumentContextFamily(Family):
    """A trained document context on a frozen base."""

    casts = False

    def build(self) -> ContextModule:
        """A module for the recipe's base, its weights drawn under the seed; or one that was trained before."""
        recipe = self.recipe
        settings = known_settings(recipe, ("heads", "hidden"))
        if (as_path(recipe.base) / FILE).is_file():
            raise ConfigError(f"base={recipe.base!r} is a trained document context: name the model of its vectors.")
        model: Any = load(recipe.base, device="cpu")
        width = plain_encoder(model).dimension
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return ContextModule(TrainedContextConfig(recipe.base, width, **settings), probe_of(model))

    def settings(self, model: ContextModule) -> Mapping[str, Any]:
        """Its shape."""
        return {name: getattr(model.shape, name) for name in ("base", "width", "heads", "hidden")}

    def loss(self, model: ContextModule, prepared: Prepared) -> DocumentContextLoss:
        """Both InfoNCE losses."""
        return DocumentContextLoss(model, self.recipe)

    def encoder(self, model: ContextModule) -> TrainedContext:
        """The document context as it is used."""
        return model.trained()

    def collator(self, model: ContextModule, prepared: Prepared) -> DocumentCollator:
        """Vectors of whole documents."""
        return DocumentCollator(self.recipe, prepared.documents)

    def save(self, model: ContextModule, path: str, card: Mapping[str, Any]) -> None:
        """Write the weights and a card."""
        model.trained().save_pretrained(path)
        with atomic_write(Path(path) / "README.md") as temporary:
            temporary.write_text(document_card(self.settings(model), **card), encoding="utf-8")

    def restore(self, model: ContextModule, path: Path) -> None:
        """Read the weights of a checkpoint."""
        tensors = TrainedContext.from_pretrained(path).tensors
        model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
