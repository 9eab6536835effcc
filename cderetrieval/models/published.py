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
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError, ModelError, WeightsError
from .config import ContextualConfig
from .directory import config_of, load_tokenizer
from .fits import check_counts
from .locate import fetch, from_hub, installed_minilm
from .weights import read_checkpoint

# Published `embedder` names whose configuration is transformers' default for the family: no hub is needed for them.
KNOWN_BACKBONES: dict[str, dict[str, Any]] = {
    "nomic-ai/nomic-bert-2048": {"model_type": "nomic_bert", "hidden_size": 768},
    "nomic-ai/nomic-embed-text-v1-unsupervised": {"model_type": "nomic_bert", "hidden_size": 768},
    "nomic-ai/nomic-embed-text-v1": {"model_type": "nomic_bert", "hidden_size": 768},
    "answerdotai/ModernBERT-base": {"model_type": "modernbert", "hidden_size": 768},
}

# The published checkpoints have no tokenizer; these are the ones they were trained with.
TOKENIZERS = {"nomic_bert": "bert-base-uncased", "modernbert": "answerdotai/ModernBERT-base"}
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


def published_config(
    config: Mapping[str, Any],
    backbone: Mapping[str, Any],
    *,
    first_stage_backbone: Mapping[str, Any] | None = None,
    null_token: bool = False,
    instruction_end_id: int | None = None,
) -> ContextualConfig:
    """Translate a published ``config.json``."""
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


def read_published(directory: Path, config: Mapping[str, Any]) -> tuple[ContextualConfig, Any, dict[str, Tensor]]:
    """Settings, tokenizer and tensors of a directory with the layout of jxm/cde-small-v1 or -v2."""
    local = not from_hub(directory)
    first = backbone_settings(config["embedder"], local=local)
    second = backbone_settings(config.get("dataset_backbone") or config["embedder"], local=local)
    tensors = read_checkpoint(directory)
    for settings in (config, first, second):
        check_counts(settings, len(tensors), str(directory / "config.json"))
    for settings, stage in ((first, _STAGES[0]), (second, _STAGES[1])):
        # The vocabulary of the checkpoint counts: tokenizers grow, and configurations are not always changed with them.
        for name in ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"):
            if stage + name in tensors:
                settings["vocab_size"] = tensors[stage + name].shape[0]
    tokenizer = _tokenizer(directory, second["model_type"])
    converted = published_config(
        config,
        second,
        first_stage_backbone=first,
        null_token=NULL_TOKEN in tensors,
        instruction_end_id=instruction_end(config, tokenizer),
    )
    return converted, tokenizer, native_names(tensors)


def instruction_end(config: Mapping[str, Any], tokenizer: Any) -> int | None:
    """Id of the token that ends a prompt, the first one of ``": "``, where the pooling leaves prompts out."""
    if tokenizer is None or not config.get("pool_ignore_instruction_tokens"):
        return None
    return int(tokenizer.encode(": ", add_special_tokens=False)[0])


def backbone_settings(embedder: str, *, local: bool = True) -> dict[str, Any]:
    """transformers configuration of a published model's `embedder`, from this package where it is known.

    Another one is looked up in the hub's cache, and with ``local=False`` on the hub.
    """
    from transformers import AutoConfig

    if embedder in KNOWN_BACKBONES:
        values = dict(KNOWN_BACKBONES[embedder])
        settings: dict[str, Any] = AutoConfig.for_model(values.pop("model_type"), **values).to_dict()
        return settings
    return config_of(fetch(embedder, local=local))


def _tokenizer(directory: Path, family: str) -> Any:
    """The tokenizer in the directory, on the hub, or the equal vocabulary of the installed MiniLM."""
    if (directory / "tokenizer.json").is_file() or (directory / "vocab.txt").is_file():
        return load_tokenizer(directory, by_config=True)
    name = TOKENIZERS.get(family, "bert-base-uncased")
    minilm = installed_minilm()
    if name == "bert-base-uncased" and minilm is not None:
        return load_tokenizer(minilm, by_config=True, model_max_length=512)
    try:
        return load_tokenizer(fetch(name, local=not from_hub(directory)), by_config=True)
    except ModelError as error:
        raise WeightsError(
            f"{directory} ships no tokenizer, and {name!r}, the one it was trained with, could not be fetched. Copy "
            f"its tokenizer.json and tokenizer_config.json into {directory}."
        ) from error
