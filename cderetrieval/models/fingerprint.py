"""The fingerprint of an encoder that holds a torch model: of what determines a vector, and of nothing else.

BERT has a pooler that no encoder here reads: they pool the states of tokens. A checkpoint that masked-language-model
training left has no weights of one, and each loading draws others. So what was drawn is left out. A pooler that was
read from a file stays in, because fingerprints of indexes that were written so must stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cached_property
from typing import Any

from torch import nn

from .encoder import TextEncoder, tensors_digest
from .weights import unique_tensors

_POOLER = re.compile(r"(.*\.)?pooler\.(dense\.)?(weight|bias)")


class FingerprintedEncoder(TextEncoder):
    """An encoder whose ``model`` is a torch module, and whose fingerprint is a digest of it."""

    model: Any

    def _identity(self) -> str:
        """What determines a vector beside weights and tokenizer."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, modules, prompts and tokenizer."""
        return self._digest(self._unread if self.is_drawn else ())

    @cached_property
    def other_fingerprints(self) -> tuple[str, ...]:
        """What the same encoder was, or will be, called where its pooler is drawn, or read from a file."""
        return (self._digest(() if self.is_drawn else self._unread),) if self._unread else ()

    @cached_property
    def is_drawn(self) -> bool:
        """Whether weights that no vector depends on were drawn at random when the model was loaded."""
        return bool(self._unread) and were_drawn(self.model, self._unread)

    @cached_property
    def _unread(self) -> frozenset[str]:
        return unread_tensors(self.model)

    def _digest(self, without: Collection[str]) -> str:
        tensors = {name: tensor for name, tensor in unique_tensors(self.model).items() if name not in without}
        return tensors_digest(tensors, self._identity(), self.tokenizer)


def unread_tensors(model: nn.Module) -> frozenset[str]:
    """Names of the pooler's tensors, where the states of tokens are read and not what the pooler makes of them."""
    if any("pooler_output" in str(getattr(module, "modality_config", "")) for module in model.modules()):
        return frozenset()
    return frozenset(name for name in model.state_dict() if _POOLER.fullmatch(name))


def were_drawn(model: nn.Module, names: Collection[str]) -> bool:
    """Whether tensors were drawn when a model was loaded; transformers marks all that it found in a file.

    A copy of a model has lost the marks. Then a bias of zeros, where every pooler starts, tells one that was drawn.
    """
    tensors = model.state_dict(keep_vars=True)
    found = {name for name, tensor in tensors.items() if getattr(tensor, "_is_hf_initialized", False)}
    if found:
        return not found & set(names)
    return not any(tensors[name].any() for name in names if name.endswith("bias"))
