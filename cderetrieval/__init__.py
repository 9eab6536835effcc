"""Retrieval whose embeddings know the corpus they search.

>>> import cderetrieval
>>> "Retriever" in dir(cderetrieval)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import GIVEN, exports

__version__ = "0.1.1"

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
    __all__, __getattr__, __dir__ = exports(__name__, "__version__")
    GIVEN["mteb"] = lambda model: __getattr__("MTEBModel")(model)  # so that mteb takes a model as it is
