"""From a name to a model of any family: ``load("cde-minilm")``, a local directory, or a hub name.

:mod:`.locate` finds the directory and tells its family from its files; the classes are imported when they are needed,
because torch takes seconds. A masked language model can be more than one family: ``"splade:DIRECTORY"`` says which.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..files import reading
from ..runtime import Compute
from .bert_onnx import uses_onnx
from .bm25 import BM25, NAME
from .directory import AGAIN
from .locate import DEFAULT_MODEL, HYBRID, family_of, find, installed_minilm, is_masked_lm, names_of_parts, verify

if TYPE_CHECKING:
    from .contextual import ContextualTransformer
    from .dense import DenseEncoder
    from .splade import Splade
    from .statistics import StatisticsModel

logger = logging.getLogger(__name__)

# What a name can begin with, before a colon.
PREFIXES = ("dense", "centre", "splade", "sparse-embed")
# What the recipe cde-minilm changed in the weights of MiniLM (docs/cde-minilm.md).
UPDATE = Path(__file__).with_name("cde-minilm.safetensors")
# Settings of cde-minilm: chosen on slices of training sets, on sets not trained on, and on dev queries of FeedbackQA.
STATISTICS: dict[str, Any] = {"term_dimensions": 640, "term_weight": 0.7}


def load(
    name: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    runtime: str = "auto",
    precision: str = "float32",
) -> ContextualTransformer | StatisticsModel | DenseEncoder | Splade | BM25:
    """Load a model by name.

    Parameters
    ----------
    name
        ``"cde-minilm"`` (the default, works without a network), ``"all-MiniLM-L6-v2"``, ``"cde-small-v1"``,
        ``"cde-small-v2"``, a local directory, or a hub name. ``"splade:"``, ``"sparse-embed:"`` or ``"dense:"`` before
        a directory or hub name says as what to load it, where its files do not. ``"bm25"`` is words and how rare
        they are, in English; ``"bm25:german"`` and so on other languages, ``"bm25:none"`` takes words as they are.
    revision
        Hub revision.
    device
        Where to put it; None: the best there is.
    dtype
        Number format of an encoder's computation; contextual models take it with their context.
    runtime
        What computes on the processor: ``"onnx"``, ONNX Runtime (the extra ``onnx``), for BERT models such as
        ``"cde-minilm"`` and SPLADE; ``"torch"``; or ``"auto"``, the first where it is installed and knows the model.
        Both give the same vectors, up to 1e-5, so an index is not tied to one of them.
    precision
        ``"int8"``: weights and activations of such a model in eight bits, by ONNX Runtime. That is faster, and its
        vectors are others: an index keeps which it was made with.

    Returns
    -------
    ContextualTransformer, StatisticsModel, DenseEncoder, Splade, SparseEmbed or BM25
        The first two become encoders through ``model.in_context(...)``; the others are encoders.

    Raises
    ------
    ModelError
        If there is no such model, its directory cannot be read, or it holds a model of another family.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model_directory
    >>> model = load(tiny_model_directory())
    >>> model.config.attention, model.context_size
    ('cached', 4)
    >>> from cderetrieval.testing import tiny_splade_directory
    >>> load(tiny_splade_directory()).kind, load(f"sparse-embed:{tiny_splade_directory()}").kind
    ('sparse', 'sparse-embed')
    """
    compute = asdict(Compute(device, dtype, runtime, precision))
    name = os.fspath(name)
    prefix, colon, rest = name.partition(":")
    if name == DEFAULT_MODEL:
        return _load_default(**compute)
    if name.startswith(HYBRID):
        raise ModelError(f"{name!r} is a hybrid of {' and '.join(names_of_parts(name))}: load these one by one.")
    if prefix == NAME:
        return BM25(None if rest == "none" else rest if colon else "english")
    with reading(name, error=ModelError, remedy=AGAIN):
        if prefix in PREFIXES and rest:
            directory = find(rest, revision)
            found = family_of(directory)
            if prefix in ("dense", "centre") and found not in ("dense", "centre"):
                raise ModelError(
                    f"{directory} holds a {found} model, which {name!r} cannot load: leave out '{prefix}:'."
                )
            model = _load(prefix, directory, **compute)
        else:
            directory = find(name, revision)
            if (family := family_of(directory)) == "dense" and is_masked_lm(directory):
                logger.warning(
                    "%s is a masked language model; it is loaded as a dense one, the mean of its token states. "
                    "'splade:%s' loads it as SPLADE, and 'dense:%s' says that this is meant.",
                    *[name] * 3,
                )
            model = _load(family, directory, **compute)
        # One short text shows whether the parts of the model fit each other.
        encoder = model.in_context(None) if hasattr(model, "in_context") else model
        if getattr(encoder, "tokenizer", encoder) is not None:
            encoder.encode_query(["a short text"])
    return model


def _load(
    family: str, directory: Path, **compute: Any
) -> ContextualTransformer | StatisticsModel | DenseEncoder | Splade | BM25:
    if family not in ("centre", "dense", "splade"):
        uses_onnx(Compute(**compute), str(directory), known=False)
    match family:
        case "contextual":
            from .contextual import ContextualTransformer

            return ContextualTransformer.from_pretrained(str(directory), device=compute["device"])
        case "centre":
            from .statistics import StatisticsModel

            return StatisticsModel.from_pretrained(directory, **compute)
        case "splade":
            from .splade import Splade

            return Splade(directory, **compute)
        case "sparse-embed":
            from .sparse_embed import SparseEmbed

            return SparseEmbed(directory, device=compute["device"], dtype=compute["dtype"])
        case _:
            from .dense import DenseEncoder

            return DenseEncoder(directory, **compute)


def _load_default(**compute: Any) -> StatisticsModel:
    """``cde-minilm``: all-MiniLM-L6-v2, trained further, under the statistics of a corpus."""
    from .dense import DenseEncoder
    from .statistics import StatisticsConfig, StatisticsModel

    directory = installed_minilm()
    if directory is None:
        directory = find("all-MiniLM-L6-v2")
        verify(directory / "model.safetensors")
    encoder = DenseEncoder(directory, **compute)
    encoder.add_update(UPDATE)
    return StatisticsModel(encoder, StatisticsConfig(**STATISTICS))
