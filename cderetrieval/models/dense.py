"""Any sentence-transformers model as an encoder: its own pooling, its own similarity, its own prompts.

The model computes; this module only decides which texts it computes together. Texts are sorted by token count and cut
at a token budget, where `SentenceTransformer.encode` sorts by characters and cuts at 32 texts.

A BERT in a directory (:mod:`.bert`) is computed on the processor without sentence-transformers, by ONNX Runtime or
torch, which then need not wait for its imports. Its modules are loaded when somebody asks for them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ModelError
from ..files import sha256_file
from ..runtime import Compute, autocast, check_texts, is_cpu, pick_device
from .bert import Bert, read_bert
from .bert_onnx import OnnxBert, uses_onnx
from .directory import SAFE, opened
from .encoder import EncodingSettings, check_finite, computing
from .fingerprint import FingerprintedEncoder, MadeOf, made_of_bert
from .loading import length_limit, prompts_of
from .locate import find
from .weights import add_update, read_update

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

_LOCK = threading.Lock()
Computer = Callable[[np.ndarray, np.ndarray], np.ndarray]


class _Held:
    """A model: as it lies in its directory, until somebody asks for its modules. Copies of an encoder share it."""

    def __init__(self, model: SentenceTransformer | None, bert: Bert | None, compute: Compute, onnx: bool) -> None:
        # The model as it lies in its directory, as long as nothing else computes; and its modules.
        self.plain, self.model = bert, model
        self._compute, self._onnx = compute, onnx
        self._updates: list[Path] = []
        self.computer: Computer | None = None
        # Vectors of documents by a digest of their text, and the settings that they were made with.
        self.sampled: tuple[EncodingSettings | None, dict[bytes, np.ndarray]] = (None, {})

    def load(self) -> SentenceTransformer:
        """Load the modules, which may be changed from now on."""
        with _LOCK:
            if self.model is None and self.plain is not None:
                model = _read_modules(self.plain.directory, "cpu").eval()
                for update in self._updates:
                    add_update(model[0].auto_model, update)
                self.model, self.sampled = model, (None, {})
                if self._compute.precision != "int8":
                    self.plain = None
        return self.model

    def begin(self, bert: Bert) -> Computer:
        """What computes the vectors of token ids and mask (b, t) of the model as it lies in its directory."""
        with _LOCK:
            if self.computer is None and self._onnx:
                self.computer = OnnxBert(bert, int8=self._compute.precision == "int8")
            elif self.computer is None:
                from .bert_torch import TorchBert

                self.computer = TorchBert(bert)
        return self.computer

    def add_update(self, path: Path) -> None:
        """Add a file of what training changed to the weights."""
        if self.model is not None:
            add_update(self.model[0].auto_model, path)
        if self.plain is not None:
            tensors = self.plain.tensors
            update = read_update(path, {name: array.shape for name, array in tensors.items()})
            self.plain = self.plain.changed({name: tensors[name] + change for name, change in update.items()})
            self._updates.append(path)
            self.computer, self.sampled = None, (None, {})


def _read_modules(directory: Path, device: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    with opened(directory) as view:
        return SentenceTransformer(str(view), device=device, **SAFE)


def _exported_digests(model: SentenceTransformer) -> list[str]:
    """Digests of the weights of an ONNX or OpenVINO backend, which holds no tensors, only what it can write."""
    with tempfile.TemporaryDirectory() as folder:
        model[0].auto_model.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.suffix.startswith((".onnx", ".bin")))
        if not files:
            raise ModelError(f"backend={model.get_backend()!r} wrote no weights, so they cannot be told from others.")
        return [f"{file.name} {sha256_file(file)}" for file in files]


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class DenseEncoder(FingerprintedEncoder):
    """A sentence-transformers model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model
        The model, of any backend of sentence-transformers, or the directory or hub name to load it from.
    dtype
        Number format of the computation, see :func:`~cderetrieval.runtime.autocast`.
    device
        Where to compute; None: the best there is.
    prompts
        Replace the model's prompts, by name.
    runtime, precision
        What computes, and with which weights, see :func:`~cderetrieval.load`; for models in a directory.

    Raises
    ------
    ModelError
        If the directory or hub name cannot be loaded.
    ConfigError
        If the model compares vectors by a distance.
    """

    def __init__(
        self,
        model: SentenceTransformer | str | Path,
        *,
        dtype: str = "auto",
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        runtime: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.compute = Compute(device, dtype, runtime, precision)
        name, given, bert = type(model).__name__, None, None
        if isinstance(model, str | Path):
            directory, name = find(str(model)), str(model)
            bert = read_bert(directory) if is_cpu(device) and dtype != "bfloat16" else None
            given = None if bert is not None else _read_modules(directory, str(pick_device(device)))
        else:
            given = model if device is None else model.to(pick_device(device))
        if given is not None:
            given.eval()
        self._held = _Held(given, bert, self.compute, uses_onnx(self.compute, name, bert is not None))
        described: Any = given or bert
        if described.similarity_fn_name not in ("cosine", "dot"):
            raise ConfigError(
                f"this model compares vectors by {described.similarity_fn_name!r}, an index here by inner product: use "
                "a model with 'cosine' or 'dot'."
            )
        settings = EncodingSettings(
            max_length=length_limit(given) if bert is None else bert.max_length,
            prompts=prompts_of(described, prompts),
            dtype=dtype,
            normalize=described.similarity_fn_name == "cosine",
        )
        dimension = int(bert.config.hidden_size if bert is not None else described.get_embedding_dimension())
        super().__init__(described.tokenizer, settings, "cpu" if given is None else given.device, dimension)

    @property
    def model(self) -> SentenceTransformer:
        """The modules; once they were asked for, they compute, because they may be trained. In int8 they do not."""
        if self._held.model is None:
            self.tokenizer = self._held.load().tokenizer
        return self._held.model

    def add_update(self, path: str | Path) -> None:
        """Add a file of what training changed to the weights."""
        self._held.add_update(Path(path))

    def _identity(self) -> str:
        values = {**dataclasses.asdict(self.settings), "dtype": None}
        if (bert := self._held.plain) is not None:
            return repr(sorted({**values, "modules": bert.module_names()}.items()))
        values["modules"] = [repr(module) for module in self.model]
        if self.model.truncate_dim is not None:
            values["dimension"] = self.dimension
        if self.model.get_backend() != "torch":
            values["exported"] = _exported_digests(self.model)
        return repr(sorted(values.items()))

    def _made_of(self) -> MadeOf:
        if (bert := self._held.plain) is None:
            return super()._made_of()
        return made_of_bert(bert)

    @cached_property
    def _takes_token_ids(self) -> bool:
        """Whether the first module is a transformer that batches of token ids can be fed to."""
        from sentence_transformers.base.modules import Transformer

        return isinstance(self.model[0], Transformer) and getattr(self.tokenizer, "is_fast", False)

    @cached_property
    def _pools_prompt(self) -> bool:
        return all(getattr(module, "include_prompt", True) for module in self.model)

    def encode(self, texts: Sequence[str], *, prompt_name: str = "document", show_progress: bool = False) -> np.ndarray:
        """Vectors of texts under a prompt of the model, shape (n, dimension), float32; of one text, (dimension,)."""
        if isinstance(texts, str):
            vector: np.ndarray = self.encode([texts], prompt_name=prompt_name, show_progress=show_progress)[0]
            return vector
        if prompt_name == "document" and self._held.sampled[0] == self.settings:
            return self._encode_others(texts, show_progress)
        if self._held.plain is not None or (self._takes_token_ids and self._pools_prompt):
            return super().encode(texts, prompt_name=prompt_name, show_progress=show_progress)
        # Static, routed and multimodal models, and poolings that leave out the prompt, batch in their own way.
        encode = {"query": self.model.encode_query, "document": self.model.encode_document}.get(prompt_name)
        texts, prompt = check_texts(texts), self.prompt(prompt_name)
        with autocast(self.device, self.settings.dtype), computing("the model"):
            vectors = (encode or self.model.encode)(
                texts,
                prompt=prompt,
                show_progress_bar=show_progress,
                normalize_embeddings=self.settings.normalize,
            )
            matrix = np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)
        if len(matrix):
            check_finite(matrix)
        return matrix

    def encode_sample(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of documents which are kept, as a sample's are soon asked for again: in a small corpus all of them.

        Only where they cannot change: nobody trains, and a vector does not depend on the texts beside it, to the bit.
        """
        self._held.sampled = (None, {})
        vectors = self.encode_document(texts, show_progress=show_progress)
        if self._held.plain is not None and isinstance(self._held.computer, OnnxBert):
            self._held.sampled = self.settings, dict(zip(map(_key, texts), vectors, strict=True))
        return vectors

    def _encode_others(self, texts: Sequence[str], show_progress: bool) -> np.ndarray:
        """Vectors of documents, computed where they are not kept."""
        known = self._held.sampled[1]
        keys = list(map(_key, check_texts(texts)))
        others = [text for text, key in zip(texts, keys, strict=True) if key not in known]
        made = iter(super().encode(others, show_progress=show_progress))
        rows = [known[key] if key in known else next(made) for key in keys]
        return np.stack(rows) if rows else np.empty((0, self.dimension), dtype=np.float32)

    def _vectors(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        bert = self._held.plain
        if bert is None or (self.settings.dtype == "bfloat16" and self.compute.precision != "int8"):
            return super()._vectors(ids, mask)
        return (self._held.computer or self._held.begin(bert))(ids, mask)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to vectors (b, dimension), as the model's modules give them.

        A model with a `truncate_dim` (Matryoshka) keeps so many of their dimensions.
        """
        modules: Any = self._held.model or self.model
        output: Tensor = modules(self._features(input_ids, attention_mask))["sentence_embedding"]
        return output[:, : self.dimension]
