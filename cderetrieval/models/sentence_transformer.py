"""A contextual model as a sentence-transformers module.

    model = sentence_transformer("path/of/a/contextual/model")
    context = model.encode(sample, prompt_name="document", convert_to_tensor=True)                       # first stage
    vectors = model.encode(texts, prompt_name="query", dataset_embeddings=context)                       # second stage

Without `dataset_embeddings` the first stage runs, with it the second: the convention of the published models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from ..runtime import check_texts, pick_device
from .config import ContextualConfig
from .contextual import ContextualTransformer


class ContextualModule(InputModule):
    """Both stages of a contextual model behind `SentenceTransformer`."""

    save_in_root = True  # noqa: V107
    forward_kwargs = {"dataset_embeddings", "null_dataset_embedding"}  # noqa: RUF012, V107

    def __init__(self, model: ContextualTransformer) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = model.tokenizer

    @property
    def config(self) -> ContextualConfig:
        """Settings; ``transductive_corpus_size`` among them."""
        return self.model.config

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text, special tokens included; can be set, and is then saved with the model."""
        return self.model.config.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.model.config = self.model.config.replace(max_length=value)

    def preprocess(self, inputs: list[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Tokenize a batch of texts."""
        texts = [(prompt or "") + text for text in check_texts(inputs)]
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.max_seq_length, padding=True, return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def tokenize(self, texts: list[str], **kwargs: Any) -> dict[str, Tensor]:
        """Tokenize a batch of texts, under the name of older releases."""
        return self.preprocess(texts)

    def forward(
        self,
        features: dict[str, Any],
        dataset_embeddings: Tensor | None = None,
        null_dataset_embedding: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run the first stage, or with a context the second."""
        batch = {name: features[name] for name in ("input_ids", "attention_mask")}
        if dataset_embeddings is None and not null_dataset_embedding:
            features["sentence_embedding"] = self.model.first_stage_model(**batch)
        else:
            features["sentence_embedding"] = self.model.second_stage_model(
                **batch, dataset_embeddings=dataset_embeddings, null_dataset_embedding=null_dataset_embedding
            )
        return features

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.model.config.hidden_size

    get_sentence_embedding_dimension = get_embedding_dimension  # noqa: V107

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the model's files."""
        self.model.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> ContextualModule:
        """Read a directory or hub name in this package's or in the published layout."""
        revision = kwargs.get("revision")
        return cls(ContextualTransformer.from_pretrained(model_name_or_path, revision=revision, device="cpu"))


def sentence_transformer(name: str | Path, *, device: str | None = None) -> SentenceTransformer:
    """Load a contextual model, published or one's own, as a `SentenceTransformer`.

    The classes come from this package, so no code is taken from the model's directory and none has to be trusted.

    Parameters
    ----------
    name
        A directory or hub name.
    device
        Where to put it; None: the best there is.
    """
    module = ContextualModule.load(str(name))
    return SentenceTransformer(
        modules=[module],
        device=str(pick_device(device)),
        prompts=dict(module.config.prompts),
        similarity_fn_name="cosine",
    )
