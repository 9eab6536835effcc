"""Settings of a two-stage contextual encoder: every switch of the paper and of the two published checkpoints.

The first stage M1 embeds each of the J sampled context documents (backbone, mean pool, head). The second stage M2 reads
[J context embeddings | soft prompt | text] and pools over the text. What differs between published systems is how the
two parts of that sequence meet, and that is what most fields here say. Morris & Rush 2024, arXiv 2410.02525.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError

FAMILIES = ("bert", "nomic_bert", "modernbert")

# The prompts of the published models; a model may hold others.
PROMPTS = {
    "query": "search_query: ",
    "document": "search_document: ",
    "classification": "classification: ",
    "clustering": "clustering: ",
}

_CHOICES = {
    "attention": ("joint", "cached"),
    "cached_form": ("gated", "shared"),
    "context_positions": ("separate", "unrotated", "sequential"),
    "text_embedding": ("once", "twice"),
    "first_stage": ("own", "tied"),
    "first_stage_head": ("mlp", "none"),
    "head": ("none", "mlp", "residual"),
    "pooling": ("mean", "cls"),
    "pool_over": ("text", "all"),
}

# Greatest value of the whole numbers, and the least of each.
MOST = 10_000_000
_LEAST = {
    "context_size": 1,
    "tokens_per_document": 1,
    "max_length": 1,
    "layers": 1,
    "first_stage_layers": 1,
    "soft_prompt_tokens": 0,
}


@dataclass(frozen=True)
class ContextualConfig:
    """Configuration of a :class:`~cderetrieval.models.contextual.ContextualTransformer`.

    Parameters
    ----------
    backbone
        The transformers configuration of M2's backbone as a dictionary; ``model_type`` is ``"bert"``, ``"nomic_bert"``
        or ``"modernbert"``.
    first_stage_backbone
        The same for M1; None: equal to `backbone`.
    first_stage
        ``"own"``: M1 has its own backbone; ``"tied"``: it is M2's, used without a context.
    first_stage_layers, layers
        Use only the first so many layers of M1's or M2's backbone; None: all.
    attention
        ``"joint"``: context and text attend to each other (the paper, and both published checkpoints).
        ``"cached"``: the context attends only to itself, and its keys and values are computed once for all texts.
    cached_form
        How cached text attends: ``"gated"``: a separate attention to the context behind a tanh gate per head, zero at
        the start; ``"shared"``: one softmax over text and context.
    context_positions
        ``"separate"``: context at position 0, text from 0 as in a plain encoder; ``"unrotated"``: context at 0, soft
        prompt and text from J on (cde-small-v1); ``"sequential"``: context at 0..J-1 (cde-small-v2).
    text_embedding
        ``"twice"``: the text passes the embedding layer twice (a habit of the v2 code that its weights need).
    context_size
        J, the number of context documents the model was made for. Any number works.
    exact_context_size
        The weights were trained with exactly J documents: a smaller corpus is repeated to fill it.
    tokens_per_document
        Vectors that M1 makes of one context document, each the mean of one part of its tokens.
    soft_prompt_tokens
        Learned vectors between context and text.
    sequence_dropout
        Probability with which training replaces a context embedding by the null token.
    null_token
        Whether there is a learned null token; needed by `sequence_dropout`.
    tie_token_embeddings
        M1 and M2 share their word embeddings.
    first_stage_head, head
        What follows the pooling in M1 and M2: ``"mlp"``, ``"residual"`` (x + mlp(x)), ``"none"``.
    pooling, pool_over, skip_instruction, instruction_end_id
        Pool the ``"mean"`` of the tokens or ``"cls"``; over the ``"text"`` or ``"all"``; `skip_instruction` leaves out
        everything up to and including the first `instruction_end_id` after the first token.
    disable_dropout
        Set every dropout of the backbones to 0.
    logit_scale
        Inverse temperature of the training loss.
    max_length
        Tokens of a text, special tokens included; longer texts are cut.
    prompts
        Name to the string put before a text.
    """

    backbone: Mapping[str, Any]
    first_stage_backbone: Mapping[str, Any] | None = None
    first_stage: str = "own"
    first_stage_layers: int | None = None
    layers: int | None = None
    attention: str = "joint"
    cached_form: str = "gated"
    context_positions: str = "unrotated"
    text_embedding: str = "once"
    context_size: int = 512
    exact_context_size: bool = False
    tokens_per_document: int = 1
    soft_prompt_tokens: int = 8
    sequence_dropout: float = 0.0
    null_token: bool = False
    tie_token_embeddings: bool = False
    first_stage_head: str = "mlp"
    head: str = "residual"
    pooling: str = "mean"
    pool_over: str = "text"
    skip_instruction: bool = False
    instruction_end_id: int | None = None
    disable_dropout: bool = True
    logit_scale: float = 50.0
    max_length: int = 512
    prompts: Mapping[str, str] = field(default_factory=lambda: dict(PROMPTS))

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(choices)}.")
        self._check_numbers()
        self._check_backbones()
        self._check_combinations()

    def _check_numbers(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name.endswith("layers"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}.")
            if value > MOST:
                raise ConfigError(f"{name}={value!r} must be at most {MOST:,}.")
        if not isinstance(self.sequence_dropout, int | float) or not 0 <= self.sequence_dropout < 1:
            raise ConfigError(f"sequence_dropout={self.sequence_dropout!r} must be a number in [0, 1).")

    def _check_backbones(self) -> None:
        for name in ("backbone", "first_stage_backbone"):
            backbone = getattr(self, name)
            if backbone is not None and backbone.get("model_type") not in FAMILIES:
                kind = backbone.get("model_type")
                raise ConfigError(f"{name}: model_type={kind!r} is not supported; use one of {', '.join(FAMILIES)}.")
        first = self.first_stage_backbone or self.backbone
        if self.first_stage_head == "none" and first.get("hidden_size") != self.backbone.get("hidden_size"):
            raise ConfigError("the stages differ in width: only first_stage_head='mlp' leads from one to the other.")
        shapes = [(values.get("vocab_size"), values.get("hidden_size")) for values in (first, self.backbone)]
        if self.tie_token_embeddings and shapes[0] != shapes[1]:
            raise ConfigError(
                f"tie_token_embeddings=True needs stages of one vocabulary and width, not {shapes[0]} and {shapes[1]}."
            )

    def _check_combinations(self) -> None:
        if self.sequence_dropout > 0 and not self.null_token:
            raise ConfigError("sequence_dropout > 0 replaces documents by the null token: set null_token=True.")
        if self.skip_instruction and self.instruction_end_id is None:
            raise ConfigError(
                "skip_instruction=True needs instruction_end_id, the token id that ends a prompt (that of ': ')."
            )
        if self.first_stage == "tied" and self.first_stage_backbone is not None:
            raise ConfigError("first_stage='tied' uses M2's backbone: leave first_stage_backbone out.")
        if self.attention == "cached" and self.context_positions != "separate":
            raise ConfigError(
                f"attention='cached' needs context_positions='separate', not {self.context_positions!r}: "
                "the cache must not depend on where a text starts."
            )
        if self.attention == "cached" and (self.text_embedding != "once" or self.pool_over != "text"):
            raise ConfigError("attention='cached' needs text_embedding='once' and pool_over='text'.")

    @property
    def family(self) -> str:
        """Model type of M2's backbone."""
        return str(self.backbone["model_type"])

    @property
    def hidden_size(self) -> int:
        """Width of M2, and of a vector."""
        return int(self.backbone["hidden_size"])

    @property
    def context_tokens(self) -> int:
        """Most context vectors that are read: J times the vectors of a document."""
        return self.context_size * self.tokens_per_document

    @property
    def transductive_corpus_size(self) -> int:
        """J under the name that the published models give it."""
        return self.context_size

    def replace(self, **changes: Any) -> ContextualConfig:
        """Return a copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ContextualConfig:
        """Read :meth:`to_dict`; an unknown field is an error that names it."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown settings {', '.join(unknown)}: written by a newer version of cderetrieval?")
        return cls(**values)
