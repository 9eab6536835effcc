"""The published weights, cde-small-v1 and cde-small-v2, without their code.

Their ``config.json`` says what was switched on when they were trained, their state dict names the tensors after the
authors' modules. Both are translated here: the configuration into a
:class:`~cderetrieval.models.config.ContextualConfig`, the names into those of transformers' own backbones.

- v1: NomicBERT twice. Context un-rotated, head without a residual, text embedded once.
- v2: ModernBERT twice. Context at positions 0..J-1, residual head, prompt left out of the pooling, and text that passes
  the embedding layer twice, because `embeddings(input_ids)` is fed back as `inputs_embeds`. BERT backbones do the same.

Source: the authors' training code (github.com/jxmorris12/cde) and the two configuration files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from .config import ContextualConfig

# Published `embedder` names whose configuration is transformers' default for the family: no hub is needed for them.
KNOWN_BACKBONES: dict[str, dict[str, Any]] = {
    "nomic-ai/nomic-bert-2048": {"model_type": "nomic_bert", "hidden_size": 768},
    "nomic-ai/nomic-embed-text-v1-unsupervised": {"model_type": "nomic_bert", "hidden_size": 768},
    "nomic-ai/nomic-embed-text-v1": {"model_type": "nomic_bert", "hidden_size": 768},
    "answerdotai/ModernBERT-base": {"model_type": "modernbert", "hidden_size": 768},
}

NULL_TOKEN = "second_stage_model.sequence_dropout_null_embedding"

# NomicBERT: the authors' names to transformers' names, inside a backbone.
_NOMIC_NAMES = [
    (r"^emb_ln\.", "embeddings.LayerNorm."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.mlp\.fc11\.", ".mlp.up_proj."),
    (r"\.mlp\.fc12\.", ".mlp.gate_proj."),
    (r"\.mlp\.fc2\.", ".mlp.down_proj."),
    (r"\.norm1\.", ".post_attention_layernorm."),
    (r"\.norm2\.", ".post_mlp_layernorm."),
]
_STAGES = ("first_stage_model.embedder.", "second_stage_model.backbone.")


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is one of the published layout."""
    return "transductive_corpus_size" in config and config.get("model_type") != "cderetrieval"


def published_config(
    config: Mapping[str, Any],
    backbone: Mapping[str, Any],
    *,
    first_stage_backbone: Mapping[str, Any] | None = None,
    null_token: bool = False,
    instruction_end_id: int | None = None,
) -> ContextualConfig:
    """Translate a published ``config.json``.

    Parameters
    ----------
    config
        The published configuration.
    backbone, first_stage_backbone
        The transformers configurations of ``dataset_backbone`` and ``embedder``; the second may be left out where
        they are equal.
    null_token
        Whether the checkpoint holds a learned null token.
    instruction_end_id
        Token id of the colon that ends a prompt; needed where ``pool_ignore_instruction_tokens`` is on.

    Raises
    ------
    ConfigError
        If the configuration asks for an architecture that its authors never published weights of.
    """
    if config.get("autoregressive_backbone"):
        raise ConfigError("autoregressive_backbone=true is not supported; use BERT, NomicBERT or ModernBERT.")
    if config.get("architecture", "transductive") not in ("transductive", "contextual"):
        raise ConfigError(f"architecture={config['architecture']!r} is not supported; it must be 'transductive'.")
    strategy = config.get("pooling_strategy", "mean")
    if strategy != "mean":
        raise ConfigError(f"pooling_strategy={strategy!r} is not supported; the published models use 'mean'.")
    nomic = backbone["model_type"] == "nomic_bert"
    unrotated = nomic and config.get("disable_transductive_rotary_embedding", True)
    dropout = float(config.get("transductive_sequence_dropout_prob") or 0.0)
    return ContextualConfig(
        backbone=backbone,
        first_stage_backbone=first_stage_backbone,
        first_stage_layers=config.get("limit_layers_first_stage"),
        layers=config.get("limit_layers"),
        attention="joint",
        context_positions="unrotated" if unrotated else "sequential",
        text_embedding="once" if nomic else "twice",
        context_size=int(config["transductive_corpus_size"]),
        exact_context_size=True,
        tokens_per_document=int(config.get("transductive_tokens_per_document", 1)),
        sequence_dropout=dropout,
        null_token=null_token or dropout > 0,
        tie_token_embeddings=bool(config.get("transductive_tie_token_embeddings", False)),
        head="residual" if _has_residual(config, nomic) else "mlp",
        pool_over="text" if config.get("pool_ignore_contextual_tokens", True) else "all",
        skip_instruction=bool(config.get("pool_ignore_instruction_tokens", False)),
        instruction_end_id=instruction_end_id,
        disable_dropout=bool(config.get("disable_dropout", True)),
        logit_scale=float(config.get("logit_scale", 50.0)),
        max_length=int(config.get("max_seq_length", 512)),
    )


def _has_residual(config: Mapping[str, Any], nomic: bool) -> bool:
    """v2's head adds its input, v1's does not; neither configuration says so, but the class name and backbone do."""
    if "second_stage_residual" in config:
        return bool(config["second_stage_residual"])
    return not nomic and "DatasetTransformer" not in (config.get("architectures") or [])


def native_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors to the names of this package's modules; NomicBERT's fused q, k, v are split."""
    native: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stage = next((prefix for prefix in _STAGES if name.startswith(prefix)), "")
        inner = name.removeprefix(stage)
        if inner == "embeddings.position_ids":
            continue
        if not stage or not (inner.startswith(("encoder.layers.", "emb_ln."))):
            native[name] = tensor
        elif inner.endswith(".attn.Wqkv.weight") and tensor.shape[0] % 3 == 0:
            layer = inner.removesuffix(".attn.Wqkv.weight").removeprefix("encoder.")
            for part, chunk in zip("qkv", tensor.chunk(3, dim=0), strict=True):
                native[f"{stage}{layer}.self_attn.{part}_proj.weight"] = chunk
        else:
            for pattern, replacement in _NOMIC_NAMES:
                inner = re.sub(pattern, replacement, inner)
            native[stage + inner] = tensor
    return native
