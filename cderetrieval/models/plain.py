"""A trained bi-encoder as a plain sentence-transformers model.

In training, a bi-encoder is a gated contextual model whose gates stay at zero, so that it differs from a contextual one
in nothing but the context. Once trained it is a backbone, a pooling and vectors of length 1. Saved as these it needs no
code of this package: sentence-transformers reads it, exports it, and trains it further.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from .loading import quiet

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

    from .contextual import ContextualTransformer


def is_plain(model: ContextualTransformer) -> bool:
    """Whether a model reads no context, whatever it is given, and adds nothing to its backbone but a pooling."""
    config = model.config
    if config.attention != "cached" or config.cached_form != "gated" or bool(model.second_stage_model.gates.any()):
        return False
    return config.soft_prompt_tokens == 0 and config.head == "none" and not config.skip_instruction


def plain_model(model: ContextualTransformer) -> SentenceTransformer:
    """The second stage as a sentence-transformers model of the same vectors, of length 1."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    config = model.config
    with tempfile.TemporaryDirectory() as directory, quiet():
        _backbone(model).save_pretrained(directory)
        model.tokenizer.save_pretrained(directory)
        transformer = Transformer(directory, max_seq_length=config.max_length)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=config.pooling)
    return SentenceTransformer(
        modules=[transformer, pooling, Normalize()],
        device=str(model.device),
        prompts=dict(config.prompts),
        similarity_fn_name="cosine",
    )


def _backbone(model: ContextualTransformer) -> PreTrainedModel:
    """The backbone as transformers makes it: a configuration that knows how many layers are left, and BERT's pooler.

    The pooler is never read, but without one in the file each loading would draw another, and the model's fingerprint
    with it.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    trained, values = model.second_stage_model.backbone, dict(model.config.backbone)
    layers = model.config.layers or values["num_hidden_layers"]
    values["num_hidden_layers"] = layers
    if "layer_types" in values:
        values["layer_types"] = list(values["layer_types"])[:layers]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    backbone.load_state_dict(trained.state_dict(), strict=False)
    return backbone
