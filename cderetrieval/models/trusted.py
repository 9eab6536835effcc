"""What the settings in a model directory may say to a library: lists of what is allowed, for every file.

transformers and sentence-transformers take from these files names of classes to import, files to unpickle, repositories
to fetch and keyword arguments for their own loaders. Here each file is reduced to what describes a model. What only
says where a model came from, or how fast it is to run, is left out; what would change vectors, if it were left out,
and is not known is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import ModelError

Values = dict[str, Any]

_BASE, _DENSE, _SPARSE = (
    f"sentence_transformers.{part}.modules" for part in ("base", "sentence_transformer", "sparse_encoder")
)
# The modules that may stand in modules.json, by the last part of their name, and where they are imported from.
MODULES = {
    "Transformer": _BASE,
    "Dense": _BASE,
    "Normalize": _BASE,
    "Router": _BASE,
    "Asym": _DENSE,
    "BoW": _DENSE,
    "CLIPModel": _DENSE,
    "CNN": _DENSE,
    "Dropout": _DENSE,
    "LayerNorm": _DENSE,
    "LSTM": _DENSE,
    "Pooling": _DENSE,
    "StaticEmbedding": _DENSE,
    "WeightedLayerPooling": _DENSE,
    "WordEmbeddings": _DENSE,
    "WordWeights": _DENSE,
    "MLMTransformer": _SPARSE,
    "SparseAutoEncoder": _SPARSE,
    "SparseStaticEmbedding": _SPARSE,
    "SpladePooling": _SPARSE,
}
TRANSFORMERS = ("Transformer", "MLMTransformer", "CLIPModel")
# Modules that read a file of weights.
WEIGHTED = {
    *TRANSFORMERS,
    *("Dense", "CNN", "LayerNorm", "LSTM", "StaticEmbedding", "WeightedLayerPooling", "WordEmbeddings"),
    *("SparseAutoEncoder", "SparseStaticEmbedding"),
}
_WORD_TOKENIZERS = ("WhitespaceTokenizer", "PhraseTokenizer", "TransformersTokenizerWrapper")
_ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
    *("LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink"),
    *("Softsign", "Tanh", "Tanhshrink"),
)
# Architectures beside those that transformers lists for masked and causal language models.
_OTHER_TYPES = {
    *("canine", "dpr", "longt5", "m2m_100", "mt5", "splinter", "switch_transformers", "t5", "t5gemma", "t5gemma2"),
    *("umt5", "altclip", "chinese_clip", "clip", "clip_text_model", "siglip", "siglip2", "gemma3", "embedding_gemma2"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
}
_ATTENTION = ("eager", "sdpa", None)
_DTYPES = ("float16", "float32", "float64", "bfloat16", "auto", None)
# Keys of config.json that are no property of a model, or are left to this package.
_NOT_OF_A_MODEL = {
    *("auto_map", "_name_or_path", "name_or_path", "_commit_hash", "configuration_files", "custom_generate", "task"),
    *("tp_plan", "pp_plan", "base_model_tp_plan", "base_model_pp_plan", "base_model_ep_plan", "task_specific_params"),
    *("_attn_implementation_internal", "_experts_implementation_internal", "_attn_implementation_autoset"),
    *("experts_implementation", "_experts_implementation", "attn_implementation", "_attn_implementation"),
    *("use_kernels", "kernel_config", "tokenizer_file", "distributed_config"),
}
# Keys of config.json on which vectors depend, and which cannot be obeyed without running what they name.
_REFUSED = ("quantization_config", "transformers_weights", "per_layer_config", "fusion_config", "gguf_file")
# Keyword arguments that older and newer releases save beside the length limit.
_ARGUMENTS = {
    "model": {"add_pooling_layer", "attn_implementation", "_attn_implementation", "dtype", "torch_dtype"},
    "processor": {
        *("padding_side", "truncation_side", "model_max_length", "do_lower_case", "clean_up_tokenization_spaces"),
        *("add_prefix_space", "add_bos_token", "add_eos_token", "strip_accents"),
    },
    "config": {"output_hidden_states", "output_attentions", "num_labels", "is_decoder"},
}
# Those of them that are about loading, not about the model.
_OF_LOADING = {
    *("use_safetensors", "low_cpu_mem_usage", "use_fast", "use_cache", "device_map", "cache_dir", "token", "subfolder"),
    *("use_auth_token", "revision", "code_revision", "local_files_only", "force_download", "resume_download"),
}
_ARGUMENT_NAMES = {
    **{"model_args": "model", "model_kwargs": "model", "config_args": "config", "config_kwargs": "config"},
    **{"tokenizer_args": "processor", "tokenizer_kwargs": "processor", "processor_kwargs": "processor"},
}
_SENTENCE = {
    *("transformer_task", "modality_config", "module_output_name", "processing_kwargs", "unpad_inputs"),
    *("query_length", "document_length", "max_seq_length", "do_lower_case"),
}
_TASKS = ("feature-extraction", "fill-mask", "sequence-classification")
_METHODS = {"forward", *(f"get_{kind}_features" for kind in ("text", "image", "audio", "video"))}
_CLASS_NAME = re.compile(r"[A-Za-z0-9_]*(Tokenizer|Processor|FeatureExtractor)(Fast)?|PreTrainedTokenizer(Fast)?")
_BACKENDS = ("TokenizersBackend", "PythonBackend", "SentencePieceBackend")
_NAMES_CLASS = re.compile(r"(.*_class|.*_processor_type|.*_extractor_type)")
_OF_SETTINGS = {
    *("model_type", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "max_active_dims"),
    "requirements",
}
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def refuse(where: str, what: str) -> ModelError:
    """Build the error for a setting that is not followed."""
    return ModelError(
        f"{where}: {what} is not allowed: a model directory may hold settings, a tokenizer and safetensors, and name "
        "no code, files or repositories. Fetch or save the model again without it."
    )


def module_name(type_name: Any, where: str) -> str:
    """Last part of the name of a module that sentence-transformers has itself.

    >>> module_name("sentence_transformers.models.Pooling", "modules.json")
    'Pooling'
    """
    name = type_name.rpartition(".")[2] if isinstance(type_name, str) else ""
    if name not in MODULES or not type_name.startswith("sentence_transformers."):
        raise refuse(where, f"the module {type_name!r}")
    return str(name)


def imported_from(name: str) -> str:
    """Full name of a module class, whatever the directory called it."""
    return f"{MODULES[name]}.{name}"


@lru_cache(maxsize=1)
def _model_types() -> frozenset[str]:
    from transformers.models.auto import modeling_auto as auto

    listed = {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    return frozenset(listed | _OTHER_TYPES)


def is_known_type(model_type: Any) -> bool:
    """Whether transformers has an architecture of this name that embeds texts."""
    # BERT is known without transformers, which takes seconds to import.
    return isinstance(model_type, str) and (model_type == "bert" or model_type in _model_types())


def model_config(values: Values, where: str) -> Values:
    """config.json of a transformer: its own settings, without what names code, files or repositories."""
    if not is_known_type(values.get("model_type")):
        raise refuse(where, f"model_type={values.get('model_type')!r}, no text model that transformers has itself,")
    return _of_a_model(values, where)


def _of_a_model(values: Values, where: str) -> Values:
    kept = {}
    for key, value in values.items():
        if key in _REFUSED and value is not None:
            raise refuse(where, key)
        if key in _NOT_OF_A_MODEL or key in _REFUSED or str(key).startswith("trust_"):
            continue
        _check_value(key, value, where)
        if isinstance(value, Mapping):  # a part of the model, of a known type or of one that extends the outer one's
            kind, outer = value.get("model_type"), values.get("model_type")
            if kind is not None and not is_known_type(kind) and not (outer and str(kind).startswith(f"{outer}_")):
                raise refuse(where, f"model_type={kind!r} in {key}")
            value = _of_a_model(dict(value), where)
        kept[key] = value
    # Attention that needs nothing but torch may be asked for.
    asked = values.get("attn_implementation") or values.get("_attn_implementation")
    return {**kept, "_attn_implementation": asked} if asked in ("eager", "sdpa") else kept


def _check_value(key: str, value: Any, where: str) -> None:
    if key in ("dtype", "torch_dtype") and value not in _DTYPES:
        raise refuse(where, f"{key}={value!r}")
    if _NAMES_CLASS.fullmatch(str(key)):
        _check_class(key, value, where)


def _check_class(key: str, value: Any, where: str) -> None:
    if value is None or (isinstance(value, str) and (_CLASS_NAME.fullmatch(value) or value in _BACKENDS)):
        return
    raise refuse(where, f"{key}={value!r}")


def sentence_config(values: Values, where: str) -> Values:
    """sentence_bert_config.json and its older names."""
    kept: Values = {}
    for key, value in values.items():
        if key in _ARGUMENT_NAMES:
            kept[key] = _arguments(_ARGUMENT_NAMES[key], value, f"{where}, {key}")
        elif key in _SENTENCE:
            kept[key] = value
        elif value not in (None, "", False):
            raise refuse(where, key)
    if kept.get("transformer_task", "feature-extraction") not in _TASKS:
        raise refuse(where, f"transformer_task={kept['transformer_task']!r}")
    _check_modalities(kept.get("modality_config"), where)
    _check_processing(kept.get("processing_kwargs"), where)
    return kept


def _arguments(kind: str, value: Any, where: str) -> Values:
    kept = {}
    for key, item in (value or {}).items():
        if _is_of_loading(key):
            continue
        if key not in _ARGUMENTS[kind] and not (kind == "processor" and key.endswith("_token")):
            raise refuse(where, key)
        if not isinstance(item, str | int | float | bool | None):
            raise refuse(where, f"{key}={item!r}")
        if key.endswith("attn_implementation") and item not in _ATTENTION:
            continue
        _check_value(key, item, where)
        kept[key] = item
    return kept


def _is_of_loading(key: str) -> bool:
    return key in _OF_LOADING or key.startswith("trust_")


def _check_modalities(value: Any, where: str) -> None:
    for settings in (value or {}).values():
        if not isinstance(settings, Mapping) or settings.get("method") not in _METHODS:
            raise refuse(where, f"modality_config={settings!r}")


def _check_processing(value: Any, where: str) -> None:
    for kind, settings in (value or {}).items():
        plain = isinstance(settings, Mapping) and not any(isinstance(v, list | dict) for v in settings.values())
        if not plain or (kind == "chat_template" and settings):
            raise refuse(where, f"processing_kwargs={kind!r}")


def tokenizer_config(values: Values, where: str) -> Values:
    """tokenizer_config.json: without files elsewhere, and with the name of a tokenizer's class only."""
    kept = {}
    for key, value in values.items():
        if key.endswith(("_file", "_files")) or key in ("auto_map", "name_or_path", "_commit_hash", "init_inputs"):
            continue
        if _is_of_loading(key):
            continue
        if _NAMES_CLASS.fullmatch(key):
            _check_class(key, value, where)
        kept[key] = value
    return kept


def processor_config(values: Values, where: str) -> Values:
    """preprocessor_config.json and its kin, parts of a processor included."""
    kept = {}
    for key, value in values.items():
        if key in _NOT_OF_A_MODEL:
            continue
        _check_value(key, value, where)
        kept[key] = processor_config(value, where) if isinstance(value, dict) else value
    return kept


def dense_config(values: Values, where: str) -> Values:
    """config.json of a Dense module: its activation is one of torch's."""
    asked = values.get("activation_function")
    if asked is None:
        return values
    module, _, name = asked.rpartition(".") if isinstance(asked, str) else ("", "", "")
    if name not in _ACTIVATIONS or not module.startswith("torch.nn"):
        raise refuse(where, f"activation_function={asked!r}")
    return {**values, "activation_function": f"torch.nn.{name}"}


def static_config(values: Values, where: str) -> Values:
    """config.json of the weights of queries: they lie in the directory."""
    if values.get("path") is not None:
        raise refuse(where, f"path={values['path']!r}")
    return values


def words_config(values: Values, where: str) -> Values:
    """wordembedding_config.json: a tokenizer of sentence-transformers."""
    asked = values.get("tokenizer_class")
    name = asked.rpartition(".")[2] if isinstance(asked, str) else ""
    if name not in _WORD_TOKENIZERS or not str(asked).startswith("sentence_transformers."):
        raise refuse(where, f"tokenizer_class={asked!r}")
    return {**values, "tokenizer_class": f"{_DENSE}.tokenizer.{name}"}


def model_settings(values: Values, where: str) -> Values:
    """config_sentence_transformers.json."""
    del where
    return {key: value for key, value in values.items() if key in _OF_SETTINGS}


def weight_index(values: Values, where: str) -> Values:
    """model.safetensors.index.json: shards of this directory."""
    named = values.get("weight_map")
    if not isinstance(named, Mapping) or not named:
        raise refuse(where, "an index without weight_map")
    for name in named.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise refuse(where, f"the file {name!r}")
    return {"metadata": {}, "weight_map": dict(named)}


def unchanged(values: Values, where: str) -> Values:
    """A file whose values are only numbers and texts to its reader."""
    del where
    return values


SettingsFilter = Callable[[Values, str], Values]
# By the name of a file; config.json is another file in every module.
FILTERS: Mapping[str, SettingsFilter] = {
    **{f"sentence_{name}_config.json": sentence_config for name in ("bert", "roberta", "distilbert", "camembert")},
    **{f"sentence_{name}_config.json": sentence_config for name in ("albert", "xlm-roberta", "xlnet")},
    **{f"{name}_config.json": processor_config for name in ("preprocessor", "processor", "video_preprocessor")},
    **{f"{name}_config.json": unchanged for name in ("cnn", "lstm", "whitespacetokenizer", "phrasetokenizer")},
    "tokenizer_config.json": tokenizer_config,
    "special_tokens_map.json": unchanged,
    "added_tokens.json": unchanged,
    "wordembedding_config.json": words_config,
    "model.safetensors.index.json": weight_index,
}
CONFIGS: Mapping[str, SettingsFilter] = {
    **dict.fromkeys(TRANSFORMERS, model_config),
    "Dense": dense_config,
    "SparseStaticEmbedding": static_config,
}
