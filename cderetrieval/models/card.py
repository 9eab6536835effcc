"""The model card: what a model is, what it was made from, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .config import ContextualConfig

_TEMPLATE = """---
library_name: cderetrieval
pipeline_tag: sentence-similarity
license: {license}
{base_line}tags:
- {tag}
- sentence-transformers
- retrieval
---
# {name}

{about}

| setting | value |
|---|---|
{settings}

## Use

```python
from cderetrieval import Retriever

retriever = {retriever}
retriever.add(documents)
retriever(["a question"], k=10)
```
{sections}"""
_CONTEXTUAL = """A two-stage contextual encoder: the first stage embeds a sample of the corpus, the second stage embeds
queries and documents in that context (Morris & Rush 2024, [arXiv 2410.02525](https://arxiv.org/abs/2410.02525))."""
_STATISTICS = """A dense encoder that reads the statistics of a corpus: its mean, its topics, and which of its terms are
rare. The settings are in `statistics.json`, which only `cderetrieval` reads.

`SentenceTransformer("this directory")` loads the encoder alone. It gives {n} dimensions, without the context and
without terms: other vectors than a `Retriever` makes. The vectors of a `Retriever`, without an index:

```python
from cderetrieval import Context, load

model = load("directory or hub name of this model")
encoder = Context.from_texts(model, sample_of_your_corpus).encoder(model)
encoder.encode_document(texts)
```"""
_DOCUMENT = """A document context: it mixes into the vector of a passage, by the model named below, what the passage
lacks of its document."""
# Kind of encoder to its tag and what it is.
_KINDS = {
    "dense": ("dense", "A dense encoder: one vector for each text, compared by {similarity}."),
    "sparse": (
        "splade",
        "SPLADE: one weight for each term of the vocabulary (Formal et al. 2021, "
        "[arXiv 2109.10086](https://arxiv.org/abs/2109.10086)).",
    ),
    "sparse-embed": (
        "sparse-embed",
        "SparseEmbed: a text's heaviest terms, each with a contextual embedding (Kong et al. 2023, SIGIR). The folder "
        "is also a SPLADE model to sentence-transformers' `SparseEncoder`.",
    ),
}


def model_card(config: ContextualConfig, *, name: str = "contextual-encoder", **fields: Any) -> str:
    """Write the card of a contextual model as Markdown; `fields` are those of :func:`write_card`."""
    settings = {
        "backbone": f"{config.family}, width {config.hidden_size}",
        "attention": config.attention if config.attention == "joint" else f"cached, {config.cached_form}",
        "context documents": config.context_size,
        "first stage": config.first_stage,
        "tokens of a text": config.max_length,
        "prompts": _prompts(config.prompts),
    }
    return write_card("contextual-document-embeddings", _CONTEXTUAL, settings, name=name, **fields)


def encoder_card(encoder: Any, *, name: str = "encoder", **fields: Any) -> str:
    """Write the card of a dense, SPLADE or SparseEmbed encoder; `fields` are those of :func:`write_card`."""
    tag, about = _KINDS[encoder.kind]
    settings = {
        "dimensions": encoder.dimension,
        "tokens of a text": encoder.settings.max_length,
        "prompts": _prompts(encoder.settings.prompts),
    }
    similarity = "cosine" if encoder.settings.normalize else "inner product"
    return write_card(tag, about.format(similarity=similarity), settings, name=name, **fields)


def statistics_card(encoder: Any, statistics: Mapping[str, Any], *, name: str, **fields: Any) -> str:
    """Write the card of a dense encoder under the statistics of its corpus."""
    settings = {
        "dimensions": encoder.dimension + statistics["term_dimensions"],
        "tokens of a text": encoder.settings.max_length,
        "prompts": _prompts(encoder.settings.prompts),
        **statistics,
    }
    return write_card(
        "contextual-document-embeddings", _STATISTICS.format(n=encoder.dimension), settings, name=name, **fields
    )


def document_card(settings: Mapping[str, Any], *, name: str, **fields: Any) -> str:
    """Write the card of a trained document context."""
    use = f'Retriever({settings["base"]!r}, on="text", document_context={{"trained": "directory of this model"}})'
    return write_card("document-context", _DOCUMENT, settings, name=name, retriever=use, **fields)


def _prompts(prompts: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}`: `{text}`" for name, text in prompts.items() if text) or "none"


def write_card(
    tag: str,
    about: str,
    settings: Mapping[str, Any],
    *,
    name: str,
    license: str = "apache-2.0",
    base_model: str | None = None,
    training_data: Sequence[str] = (),
    recipe: str = "",
    results: Mapping[str, float] | None = None,
    retriever: str = 'Retriever("directory or hub name of this model", on="text")',
) -> str:
    """Write a model card as Markdown."""
    sections = ""
    if training_data:
        sections += "\n## Training data\n\n" + "".join(f"- {entry}\n" for entry in training_data)
    if recipe:
        sections += f"\n## Training\n\n{recipe}\n"
    if results:
        rows = "".join(f"| {measure} | {value:.4f} |\n" for measure, value in results.items())
        sections += f"\n## Results\n\n| measure | value |\n|---|---|\n{rows}"
    return _TEMPLATE.format(
        name=name,
        license=license,
        base_line=f"base_model: {base_model}\n" if base_model else "",
        tag=tag,
        about=about,
        settings="\n".join(f"| {key} | {value} |" for key, value in settings.items()),
        sections=sections,
        retriever=retriever,
    )
