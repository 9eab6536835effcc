"""The hub data sets that the paper trains on: where they are, what their fields are called, which prompts they take.

``hub:nomic-unsupervised``  239M weakly paired texts of 29 domains (stage one of the paper)
``hub:nomic-supervised``    1.8M queries with mined negatives, 10 domains
``hub:bge-full-data``       the training data of BGE, with mined negatives, 30 and more domains (v1 and v2 end on it)

Only Parquet and JSON lines are fetched, never a loading script.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, ModelError
from .sources import PATTERNS, Prompts, Source

SEARCH = ("search_query: ", "search_document: ")
CLUSTERING = ("clustering: ", "clustering: ")
CLASSIFICATION = ("classification: ", "classification: ")


def _prompts(clustering: str = "", classification: str = "", **others: tuple[str, str]) -> Prompts:
    """Prompts of domains, whose names stand in two strings; all others are searches."""
    return {
        "*": SEARCH,
        **dict.fromkeys(clustering, CLUSTERING),
        **dict.fromkeys(classification, CLASSIFICATION),
        **others,
    }


@dataclass(frozen=True)
class HubData:
    """One data set of the hub.

    Attributes
    ----------
    repository
        Where it is.
    query, document, negatives, domain
        Names of its fields; an empty domain: the file's name is the domain.
    prompts
        Domain to the prompts of queries and documents.
    """

    repository: str
    query: str = "query"
    document: str = "document"
    negatives: str = "negative"
    domain: str = "dataset"
    prompts: Prompts = field(default_factory=_prompts)


HUB_DATA = {
    "nomic-unsupervised": HubData(
        "nomic-ai/nomic_embed_unsupervised",
        prompts=_prompts(
            clustering="reddit_title_body s2orc_citation_titles s2orc_title_abstract s2orc_abstract_citation "
            "s2orc_abstract_body codesearch stackexchange_duplicate_questions stackexchange_title_body "
            "stackexchange_body_body",
            classification="amazon_reviews wikianswers wikipedia agnews ccnews npr cnn sentence_compression wikihow "
            "altlex quora simplewiki",
        ),
    ),
    "nomic-supervised": HubData(
        "nomic-ai/nomic_embed_supervised",
        prompts=_prompts(
            clustering="reddit_triples",
            classification="nli_simcse_50negs_fixed medi_sts_wiki_rephrasal medi_sts_stackexchange_dupe "
            "medi_sts_flickr_sampled medi_supernli_sampled",
        ),
    ),
    "bge-full-data": HubData(
        "cfli/bge-full-data",
        document="pos",
        negatives="neg",
        domain="",
        prompts=_prompts(
            clustering="arxiv_title biorxiv_abstract biorxiv_title medrxiv_abstract medrxiv_title reddit_clustering "
            "reddit_clusteringP2P stack_exchange_clustering stack_exchange_clusteringP2P twenty_news_groups",
            classification="amazon_counterfactual_classification amazon_reviews_classification banking_classification "
            "emotion_classification imdb_classification mtop_intent_classification stack_overflow_dup_questions "
            "toxic_conversations_classification tweet_sentiment_extraction_classification",
            quora=("search_query: ", "search_query: "),
        ),
    ),
}


def hub_sources(name: str) -> list[Source]:
    """Fetch a data set of :data:`HUB_DATA`, or find it in the hub's local cache.

    Raises
    ------
    InputError
        If the name is not in the table.
    ModelError
        If the hub cannot be reached.
    """
    if name not in HUB_DATA:
        raise InputError(f"hub:{name} is unknown; use one of {', '.join(sorted(HUB_DATA))}, or local files.")
    return files_of(HUB_DATA[name], _fetch(HUB_DATA[name].repository))


def files_of(data: HubData, directory: Path) -> list[Source]:
    """Sources of a data set that lies in `directory`."""
    files = sorted(file for pattern in PATTERNS for file in directory.rglob(pattern))
    if not files:
        raise InputError(f"{data.repository} holds no {', '.join(PATTERNS)} in {directory}.")
    return [
        Source(
            str(file),
            shard_name(file),
            query=data.query,
            document=data.document,
            negatives=data.negatives,
            domain=data.domain,
            prompts=data.prompts,
        )
        for file in files
    ]


def shard_name(file: Path) -> str:
    """Name of the split that a file is a shard of.

    >>> shard_name(Path("data/msmarco-00003-of-00010.parquet")), shard_name(Path("nq.jsonl.gz"))
    ('msmarco', 'nq')
    """
    name = file.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")
    return re.sub(r"-\d+-of-\d+(-[0-9a-f]+)?$", "", name)


def _fetch(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the hub did not give the data set {repository!r} ({reason}). Check the network.") from error
