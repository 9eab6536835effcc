"""What training needs of the data: pairs, surrogate vectors, clusters, batches. All of it is computed once and kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from .batches import TextNumbers, text_numbers
from .clusters import ClusterSettings, cluster_pairs, difficulty
from .data import PairData, load_pairs, usable_domains
from .documents import DocumentData, EmbeddedDocuments, embedded_documents
from .false_negatives import FalseNegativeFilter
from .recipes import CONTEXTUAL, DOCUMENT, Recipe
from .samplers import ClusteredBatchSampler, Groups
from .surrogate import SurrogateVectors, fresh_vectors, load_surrogate, store_vectors

logger = logging.getLogger(__name__)

# Batches whose difficulty is measured before training.
MEASURED_BATCHES = 50


@dataclass(frozen=True)
class Prepared:
    """Pairs, their domains and clusters, and a report on these.

    `vectors` are the surrogate's, None if neither clusters nor a stored filter need them. `texts` keep a text from
    coming twice in a batch, None if the loss masks repetitions. `false_negatives` leaves them out of the loss.
    """

    data: PairData | DocumentData
    groups: Groups
    vectors: SurrogateVectors | None
    texts: TextNumbers | None
    report: dict[str, float]
    false_negatives: FalseNegativeFilter | None = None
    embedded: EmbeddedDocuments | None = None

    @property
    def pairs(self) -> PairData:
        """The data of all architectures but document contexts."""
        assert isinstance(self.data, PairData)
        return self.data

    @property
    def documents(self) -> EmbeddedDocuments:
        """Documents and their vectors, of a document context."""
        assert self.embedded is not None
        return self.embedded


def prepare(recipe: Recipe, cache: str | Path, *, processes: int = 1, device: str | None = None) -> Prepared:
    r"""Read the data, embed it with the surrogate, cluster it; everything is kept in `cache`.

    Parameters
    ----------
    recipe
        The recipe.
    cache
        Directory of what is computed once.
    processes
        Processes that will train.
    device
        Where the surrogate computes.

    Returns
    -------
    Prepared
        Data, groups, vectors; ``report`` has the sizes of clusters and the difficulty of batches.

    Raises
    ------
    InputError
        If a line of the data cannot be used; the message names file, line and field.
    ConfigError
        If a domain is smaller than a batch, and `small_domains` is ``"error"``.

    Examples
    --------
    >>> import json, tempfile
    >>> from cderetrieval.testing import tiny_model_directory
    >>> folder = Path(tempfile.mkdtemp())
    >>> pairs = [{"query": f"owl {n}", "document": f"owl {n} hoots"} for n in range(8)]
    >>> _ = (folder / "owls.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    >>> tiny = tiny_model_directory()
    >>> recipe = Recipe("tiny", tiny, surrogate=tiny, data=(str(folder),), batch_size=4)
    >>> prepared = prepare(recipe, folder / "cache")
    >>> len(prepared.data), prepared.data.domain_names, prepared.report["clusters"]
    (8, ['owls/owls'], 1.0)
    """
    if recipe.architecture == DOCUMENT:
        return _prepare_documents(recipe, cache, device)
    data = load_pairs(recipe.data, cache, negatives=recipe.negatives)
    ranks = processes if recipe.share_negatives else 1
    distinct = recipe.architecture not in CONTEXTUAL  # the contextual loss masks repetitions itself
    if recipe.distillation != "none":
        data.check_complete("distillation", scored=True)
    elif ranks > 1 and distinct:
        data.check_complete("sharing negatives between processes", scored=False)
    rows = recipe.batch_size * ranks
    domain = usable_domains(data, rows, recipe.small_domains)
    weights = None if data.weights is None else tuple(data.weights)
    groups, report, vectors = Groups.without_clusters(domain, np.asarray(data.dataset), weights), {}, None
    length = recipe.surrogate_length
    surrogate = partial(load_surrogate, recipe.surrogate, max_length=length, device=device)
    if recipe.clusters or recipe.filter == "stored":
        vectors = store_vectors(data, surrogate, f"{recipe.surrogate}:{length}", cache)
    if recipe.clusters and vectors is not None:
        settings = ClusterSettings(recipe.cluster_size, recipe.cluster_dimensions)
        key = {"data": data.fingerprint, "rows": rows, "small_domains": recipe.small_domains, "length": length}
        clusters = cluster_pairs(vectors, domain, settings, cache, key)
        groups = Groups(domain, clusters.assignment, clusters.centres, np.asarray(data.dataset), weights)
        report = clusters.report()
    found = None
    if recipe.filter == "fresh":
        found = FalseNegativeFilter(fresh_vectors(data, surrogate()), recipe.filter_margin)
    elif recipe.filter == "stored" and vectors is not None:
        found = FalseNegativeFilter(vectors, recipe.filter_margin)
    prepared = Prepared(data, groups, vectors, text_numbers(data, cache) if distinct else None, report, found)
    if vectors is not None:
        report |= difficulty(vectors, list(batch_sampler(recipe, prepared, ranks).plan(0)[:MEASURED_BATCHES]))
    logger.info("%d pairs; %s", len(data), ", ".join(f"{name} {value:.4g}" for name, value in report.items()))
    return prepared


def _prepare_documents(recipe: Recipe, cache: str | Path, device: str | None) -> Prepared:
    """Whole documents and the vectors of their texts by the base; like documents are neighbours in a batch."""
    embedded = embedded_documents(recipe.data, recipe.base, cache, device=device, dtype=recipe.dtype)
    data = embedded.data
    if len(data) < recipe.batch_size:
        raise ConfigError(
            f"{len(data)} documents of two passages or more are no batch of {recipe.batch_size}: take smaller batches "
            "or more documents."
        )
    domain, report = np.zeros(len(data), dtype=np.int64), {"passages": float(len(data.section))}
    groups = Groups.without_clusters(domain)
    if recipe.clusters:
        settings = ClusterSettings(recipe.cluster_size, recipe.cluster_dimensions)
        clusters = cluster_pairs(embedded.leads_and_means(), domain, settings, cache, {"data": data.fingerprint})
        groups = Groups(domain, clusters.assignment, clusters.centres)
        report |= clusters.report()
    logger.info("%d documents; %s", len(data), ", ".join(f"{name} {value:.4g}" for name, value in report.items()))
    return Prepared(data, groups, None, None, report, embedded=embedded)


def batch_sampler(recipe: Recipe, prepared: Prepared, ranks: int) -> ClusteredBatchSampler:
    """The recipe's batches."""
    return ClusteredBatchSampler(
        prepared.data,
        recipe.batch_size,
        seed=recipe.seed,
        groups=prepared.groups,
        packing=recipe.packing,
        ranks=ranks,
        texts=prepared.texts,
    )
