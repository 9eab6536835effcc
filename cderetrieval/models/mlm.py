"""A masked language model as a sparse network: the head sees only real tokens, the pooling makes term weights.

    backbone -> states (b, t, h) -> rows of real tokens (n, h) -> a few texts -> head -> logits (rows, v) -> pooled
    w_j = max_i log(1 + ReLU(logit_ij))     or, as in the first SPLADE, the sum over the tokens i of the text

The head costs about as much as a small backbone, and its output is by far the largest tensor: 4,096 tokens of 30,522
terms are 500 MB. The maximum is taken before log(1 + ReLU), which is monotone: the same result from one pass over the
logits, and a training step keeps the positions of the maxima and not the logits.
SPLADE: Formal et al. 2021, arXiv 2107.05720, 2109.10086; "log1p_relu", a second log(1 + x): arXiv 2504.14839.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from ..errors import ConfigError, ModelError
from ..runtime import pick_device
from .directory import SAFE, load_tokenizer, opened, read_config
from .loading import loading
from .locate import find
from .weights import load_tensors, read_checkpoint

# Tokens that the head is given at once; 256 rows of 30,522 float32 are 31 MB.
CPU_ROWS = 256
GPU_ROWS = 8_192
# Added before the GELU of a head that is to start linear: states are below 6.
LINEAR = 10.0
NEVER = -100.0
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class _HandOn(nn.Module):
    """In the place of a backbone: the given states are its output."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutput:
        """Hand on the states."""
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def mlm_head(model: Any) -> nn.Module:
    """The head of a masked language model: states ``inputs_embeds`` (b, t, h) to ``.logits`` (b, t, v).

    It shares all parameters with the model, so gradients flow and training changes both.
    """
    head: nn.Module = copy.copy(model)
    head.__dict__["_modules"] = {**model._modules, model.base_model_prefix: _HandOn()}
    return head


def token_states(model: Any, features: Mapping[str, Tensor]) -> tuple[Tensor, list[int]]:
    """Final hidden states of all real tokens, one text after the other, shape (n, h), and each text's token count."""
    mask = features["attention_mask"].bool()
    taken = inspect.signature(model.base_model.forward).parameters
    inputs = {name: features[name] for name in _INPUTS if name in features and name in taken}
    states = model.base_model(**inputs, return_dict=True).last_hidden_state
    return states[mask], mask.sum(dim=1).tolist()


def logits_of_texts(model: Any, rows: Tensor, lengths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Position of each text and its logits, shape (its tokens, v); a text without tokens has a row of zeros."""
    head = mlm_head(model)
    most = CPU_ROWS if rows.device.type == "cpu" else GPU_ROWS
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    text = 0
    while text < len(lengths):
        end = text + 1
        while end < len(lengths) and starts[end + 1] - starts[text] <= most:
            end += 1
        logits = head(inputs_embeds=rows[None, starts[text] : starts[end]]).logits[0]
        for position, part in enumerate(logits.split(lengths[text:end]), start=text):
            yield position, part if len(part) else logits.new_zeros(1, logits.shape[1])
        text = end


def is_splade(modules: Sequence[nn.Module]) -> bool:
    """Whether modules are a masked language model and the pooling of its logits."""
    return len(modules) == 2 and isinstance(modules[0], Transformer) and isinstance(modules[1], SpladePooling)


def no_head(family: str, modules: Sequence[nn.Module]) -> ModelError:
    """Build the error for a model of other modules."""
    found = ", ".join(type(module).__name__ for module in modules) or "nothing"
    return ModelError(
        f"{family} needs a masked language model with its head (AutoModelForMaskedLM) and SPLADE pooling; this model "
        f"has {found}. Use a SPLADE model or a masked language model, or load this one as a dense model."
    )


def pool(logits: Tensor, pooling: Any) -> Tensor:
    """Logits of one text's tokens (n, v) to its term weights (v), float32."""

    def activate(values: Tensor) -> Tensor:
        weights = torch.log1p(torch.relu(values.float()))
        return torch.log1p(weights) if pooling.activation_function == "log1p_relu" else weights

    if pooling.pooling_strategy == "sum":
        return activate(logits).sum(dim=0)
    # `max` keeps positions for the backward pass, `amax` would keep the logits.
    return activate(logits.max(dim=0).values if logits.requires_grad else logits.amax(dim=0))


def term_weights(transformer: Any, pooling: Any, features: dict[str, Tensor]) -> Tensor:
    """Term weights of a batch, shape (b, v), float32."""
    rows, lengths = token_states(transformer.model, features)
    return torch.stack([pool(logits, pooling) for _, logits in logits_of_texts(transformer.model, rows, lengths)])


def top_terms(weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Weights and ids of the k heaviest terms, each shape (..., k), by falling weight."""
    best = torch.topk(weights, min(k, weights.shape[-1]), dim=-1)
    return best.values, best.indices


class SpladeModel(SparseEncoder):
    """A `SparseEncoder` whose masked language model and pooling run as one; other modules run as they do there."""

    @classmethod
    def make(cls, name: str | Path | None, model: Any, tokenizer: Any, device: str | None, **settings: Any) -> Self:
        """From a directory or hub name, a masked language model and its tokenizer, or another `SparseEncoder`."""
        if (name is None) == (model is None):
            raise ConfigError("give model_name_or_path=, or model= with its tokenizer=: one of the two.")
        if model is None:
            return cls.from_directory(find(str(name)), device=str(pick_device(device)), **settings)
        is_module: bool = isinstance(model, nn.Module)
        if not is_module:
            raise ConfigError(
                f"model={model!r} is not a model. Give a directory or hub name as model_name_or_path=, and as model= a "
                "masked language model or a SparseEncoder."
            )
        place: Any = model.device if device is None else pick_device(device)
        if isinstance(model, cls):
            model.to(place)
            return model
        if isinstance(model, SparseEncoder):
            kept = ("default_prompt_name", "similarity_fn_name", "max_active_dims")
            settings |= {"prompts": dict(model.prompts), **{name: getattr(model, name) for name in kept}}
            return cls(modules=OrderedDict(model.named_children()), device=str(place), **settings)
        if tokenizer is None:
            raise ConfigError("a masked language model comes without its tokenizer: give tokenizer= too.")
        if getattr(model, "base_model", model) is model or model.get_output_embeddings() is None:
            raise no_head("SPLADE", [model])
        # The module reads only from a directory, so it is made from a copy on disk and then given the model itself.
        with tempfile.TemporaryDirectory(prefix="cderetrieval-") as directory, loading(type(model).__name__):
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            module = Transformer(directory, transformer_task="fill-mask")
        module.model = model
        return cls(modules=[module, SpladePooling()], device=str(place), **settings)

    @classmethod
    def from_directory(cls, directory: Path, **settings: Any) -> Self:
        """Read a directory; its settings are checked first, and only safetensors are read."""
        with opened(directory) as view:
            return cls(str(view), **SAFE, **settings)

    def parts(self) -> tuple[Any, Any, Any]:
        """Transformer and pooling, at the top or behind a router, and the weights of queries without inference."""
        modules, static = list(self.children()), None
        if modules and isinstance(modules[0], Router):
            routes = {name: list(route) for name, route in modules[0].sub_modules.items()}
            queries, modules = routes.get("query", []), routes.get("document", [])
            static = queries[0] if len(queries) == 1 and isinstance(queries[0], SparseStaticEmbedding) else None
            if static is None and queries != modules:
                names = ", ".join(type(module).__name__ for module in queries) or "nothing"
                raise ModelError(f"this model routes queries through modules that are not supported: {names}.")
        if not is_splade(modules[:2]):
            raise no_head("SPLADE", modules)
        return modules[0], modules[1], static

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Features of a batch, with ``"sentence_embedding"``: term weights (b, v)."""
        modules = list(self.children())
        if not is_splade(modules) or "cu_seq_lens_q" in input:  # a router, or inputs flattened for flash attention
            input = super().forward(input, **kwargs)
        else:
            input["sentence_embedding"] = term_weights(modules[0], modules[1], input)
        return input


def masked_lm(bias: float = -6.0) -> tuple[Any, Any]:
    """A masked language model to start sparse training from, and its tokenizer; without a network.

    all-MiniLM-L6-v2 has no masked-language-model head. Its encoder gets one whose output layer is tied to the word
    embeddings and whose transform starts as the identity: GELU(x + c) is x + c where c is large against x, and the
    layer norm behind it removes c. Its logits name a text's own tokens and words near them.

    `bias` is that of every term but the special ones, which are never activated. Terms that docstrings of up to 256
    tokens, and questions of ten, activate: 549 and 51 with -5, 174 and 16 with -6, 86 and 10 with -7, all terms with 0.
    """
    directory = find("all-MiniLM-L6-v2")
    tokenizer = load_tokenizer(directory, by_config=True)
    model = BertForMaskedLM(BertConfig(**read_config(directory)))
    tensors = {
        name: tensor
        for name, tensor in read_checkpoint(directory).items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    load_tensors(model.bert, tensors, str(directory))
    head = model.cls.predictions
    with torch.no_grad():
        torch.nn.init.eye_(head.transform.dense.weight)
        head.transform.dense.bias.fill_(LINEAR)
        head.bias.fill_(bias)
        head.bias[tokenizer.all_special_ids] = NEVER
    return model.eval(), tokenizer
