"""The model card: what a model is, what it was made from, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .config import ContextualConfig

_TEMPLATE = """---
library_name: cderetrieval
pipeline_tag: sentence-similarity
license: {license}
{base_line}tags:
- contextual-document-embeddings
- sentence-transformers
- retrieval
---
# {name}

A two-stage contextual encoder: the first stage embeds a sample of the corpus, the second stage embeds queries and
documents in that context (Morris & Rush 2024, [arXiv 2410.02525](https://arxiv.org/abs/2410.02525)).

| setting | value |
|---|---|
{settings}

## Use

```python
from cderetrieval import Retriever

retriever = Retriever("{name}", on="text")
retriever.add(documents)
retriever(["a question"], k=10)
```
{sections}"""


def model_card(
    config: ContextualConfig,
    *,
    name: str = "contextual-encoder",
    license: str = "apache-2.0",
    base_model: str | None = None,
    training_data: Sequence[str] = (),
    recipe: str = "",
    results: Mapping[str, float] | None = None,
) -> str:
    """Write the card of a contextual model as Markdown.

    Parameters
    ----------
    config
        The model's settings.
    name, license, base_model
        Of the model and of what it was trained from.
    training_data
        Names of all training sets.
    recipe
        How it was trained.
    results
        Measure to value.
    """
    shown = {
        "backbone": f"{config.family}, width {config.hidden_size}",
        "attention": config.attention if config.attention == "joint" else f"cached, {config.cached_form}",
        "context documents": config.context_size,
        "first stage": config.first_stage,
        "tokens of a text": config.max_length,
        "prompts": ", ".join(f"`{name}`: `{text}`" for name, text in config.prompts.items() if text) or "none",
    }
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
        settings="\n".join(f"| {key} | {value} |" for key, value in shown.items()),
        sections=sections,
    )
