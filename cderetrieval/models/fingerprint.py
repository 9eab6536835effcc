"""The fingerprint of an encoder that holds a torch model: of what determines a vector, and of nothing else.

BERT has a pooler that no encoder here reads: they pool the states of tokens. A checkpoint that masked-language-model
training left has no weights of one, and each loading draws others. So what was drawn is left out. A pooler that was
read from a file stays in, because fingerprints of indexes that were written so must stay what they are.

For the same reason settings that no tensor shows, such as the number of attention heads, are in it only where they are
not those of all published models of the kind.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ..runtime import Compute
from .bert import Bert
from .encoder import TextEncoder, tensors_digest
from .weights import unique_tensors

if TYPE_CHECKING:
    from torch import Tensor

# Part of the fingerprint of every int8 encoder: whoever changes how its vectors are made changes it.
INT8 = "int8-2"
# Settings that no tensor shows, and the values that published models have.
_ROBERTA = {"hidden_act": ("gelu",), "layer_norm_eps": (1e-5, 1e-12)}
_USUAL: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "bert": {"hidden_act": ("gelu",), "layer_norm_eps": (1e-12,)},
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), _ROBERTA),
    "distilbert": {"activation": ("gelu",)},
}
# Attention heads by width, where they are not 64 wide: MiniLM's, and those of the models for tests.
_HEADS = {384: 12, 32: 4}
_POOLER = re.compile(r"(.*\.)?pooler\.(dense\.)?(weight|bias)")


class MadeOf(NamedTuple):
    """What of a model is in its fingerprint.

    `unread` are the names of the pooler's tensors, where the states of tokens are read and not what the pooler makes of
    them; `unusual` the settings that no tensor shows, where they are not the usual ones.
    """

    tensors: Mapping[str, Any]
    unread: frozenset[str]
    is_drawn: bool
    unusual: set[tuple[str, Any]]


class FingerprintedEncoder(TextEncoder):
    """An encoder whose ``model`` is a torch module, and whose fingerprint is a digest of it."""

    model: Any
    compute: Compute

    def _identity(self) -> str:
        """What determines a vector beside weights and tokenizer."""
        raise NotImplementedError

    def _features(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """What the modules of sentence-transformers take."""
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = input_ids.new_zeros(input_ids.shape)
        return features

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, modules, prompts and tokenizer."""
        made = self._made_of()
        return self._digest(made.unread if made.is_drawn else ())

    @cached_property
    def other_fingerprints(self) -> tuple[str, ...]:
        """What the same encoder was, or will be, called where its pooler is drawn, or read from a file."""
        made = self._made_of()
        return (self._digest(() if made.is_drawn else made.unread),) if made.unread else ()

    @property
    def is_known_by_vectors(self) -> bool:
        """Whether earlier versions named this encoder otherwise, so that only vectors can tell what it made."""
        made = self._made_of()
        return made.is_drawn or bool(made.unusual)

    def _made_of(self) -> MadeOf:
        """What of the model is in its fingerprint."""
        return made_of(self.model)

    def _digest(self, without: Collection[str]) -> str:
        made = self._made_of()
        tensors = {name: tensor for name, tensor in made.tensors.items() if name not in without}
        more = repr(sorted(made.unusual)) if made.unusual else ""
        found = tensors_digest(tensors, self._identity() + more, self.tokenizer)
        return hashlib.sha256(f"{INT8}:{found}".encode()).hexdigest() if self.compute.precision == "int8" else found


def made_of_bert(bert: Bert) -> MadeOf:
    """What of a BERT is in its fingerprint: the same as of its modules."""
    unread = frozenset(f"0.model.{name}" for name in bert.pooler)
    return MadeOf(bert.named_tensors(), unread, bert.is_drawn, set(unusual_settings(bert.config)))


def made_of(model: Any) -> MadeOf:
    """What of a torch module is in its fingerprint."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    unusual = {setting for config in configs for setting in unusual_settings(config)}
    unread: frozenset[str] = frozenset()
    if not any("pooler_output" in str(getattr(module, "modality_config", "")) for module in model.modules()):
        unread = frozenset(name for name in model.state_dict() if _POOLER.fullmatch(name))
    return MadeOf(unique_tensors(model), unread, _is_drawn(model, unread), unusual)


def _is_drawn(model: Any, unread: frozenset[str]) -> bool:
    """Whether the pooler was drawn when the model was loaded; transformers marks all that it found in a file.

    A copy of a model has lost the marks. Then a bias of zeros, where every pooler starts, tells one that was drawn.
    """
    if not unread:
        return False
    tensors = model.state_dict(keep_vars=True)
    found = {name for name, tensor in tensors.items() if getattr(tensor, "_is_hf_initialized", False)}
    if found:
        return not found >= unread
    return not any(tensors[name].any() for name in unread if name.endswith("bias"))


def unusual_settings(config: Any) -> list[tuple[str, Any]]:
    """Settings of a transformers configuration that no tensor shows, where they are not the usual ones.

    >>> from transformers import BertConfig
    >>> unusual_settings(BertConfig()), unusual_settings(BertConfig(num_attention_heads=6, hidden_act="relu"))
    ([], [('hidden_act', 'relu'), ('num_attention_heads', 6)])
    """
    usual = _USUAL.get(getattr(config, "model_type", ""))
    if usual is None:
        return []
    width = config.hidden_size
    usual = {**usual, "num_attention_heads": (_HEADS.get(width, width // 64),)}
    found = [(name, getattr(config, name, values[0])) for name, values in usual.items()]
    return [(name, value) for name, value in found if value not in usual[name]]
