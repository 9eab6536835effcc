"""A masked language model in two parts: the backbone that gives token states, and the head that gives logits.

The head of a masked language model (states to one logit for each vocabulary term) costs about as much as a small
backbone, and its output is by far the largest tensor: 4,096 tokens of 30,522 terms are 500 MB. So the head is fed only
the rows of real tokens, a few texts at a time:

    backbone -> states (b, t, h) -> rows of real tokens (n, h) -> a few texts -> head -> logits (rows, v) -> pooled

Every family of transformers names its head otherwise (``cls``, ``lm_head``, ``vocab_projector``, ...). None is named
here: the head is the model itself with its backbone replaced by one that hands its input on.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from .directory import load_tokenizer, read_config
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
    head = copy.copy(model)
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
    """Position of each text and its logits, shape (its tokens, v); a text without tokens has a row of zeros.

    Parameters
    ----------
    model
        A masked language model.
    rows, lengths
        From :func:`token_states`.
    """
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
