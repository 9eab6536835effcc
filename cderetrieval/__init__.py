"""Retrieval whose embeddings know the corpus they search.

>>> import cderetrieval
>>> "Retriever" in dir(cderetrieval)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import GIVEN, exports

__version__ = "0.1.1"

# Public name to the module that holds it.
_PUBLIC = {
    "Retriever": "retrieval.retriever",
    "Hybrid": "retrieval.hybrid",
    "Fusion": "retrieval.fusion",
    "Context": "context.context",
    "DocumentContext": "models.document_context",
    "Hits": "queries",
    "Encoder": "types",
    "load": "models.load",
    "ContextualTransformer": "models.contextual",
    "ContextualConfig": "models.config",
    "DenseEncoder": "models.dense",
    "StatisticsModel": "models.statistics",
    "StatisticsConfig": "models.statistics",
    "BM25": "models.bm25",
    "Splade": "models.splade",
    "SparseEmbed": "models.sparse_embed",
    "evaluate": "evaluation.api",
    "context_gain": "evaluation.gain",
    "MTEBModel": "evaluation.mteb_model",
    "Results": "evaluation.results",
    "CDEError": "errors",
}
__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from .context.context import Context as Context
    from .errors import CDEError as CDEError
    from .evaluation.api import evaluate as evaluate
    from .evaluation.gain import context_gain as context_gain
    from .evaluation.mteb_model import MTEBModel as MTEBModel
    from .evaluation.results import Results as Results
    from .models.bm25 import BM25 as BM25
    from .models.config import ContextualConfig as ContextualConfig
    from .models.contextual import ContextualTransformer as ContextualTransformer
    from .models.dense import DenseEncoder as DenseEncoder
    from .models.document_context import DocumentContext as DocumentContext
    from .models.load import load as load
    from .models.sparse_embed import SparseEmbed as SparseEmbed
    from .models.splade import Splade as Splade
    from .models.statistics import StatisticsConfig as StatisticsConfig
    from .models.statistics import StatisticsModel as StatisticsModel
    from .queries import Hits as Hits
    from .retrieval.fusion import Fusion as Fusion
    from .retrieval.hybrid import Hybrid as Hybrid
    from .retrieval.retriever import Retriever as Retriever
    from .types import Encoder as Encoder
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
    GIVEN["mteb"] = lambda model: __getattr__("MTEBModel")(model)  # so that mteb takes a model as it is
