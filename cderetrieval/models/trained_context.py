"""A trained document context: a small module that mixes into a passage's vector what it lacks of its document.

    a = attention of the passage over [lead, passages of the document]            frozen vectors of the base model
    v = passage + w1 lead + w2 mean + w3 a + e,    (w, e) = MLP([passage | lead | mean | a])        all of length 1

Lead is the title or, where a document has none, its beginning. The attention knows no order, so neither does the
result. All of it is linear in the passages but for the attention, which is computed in blocks: a document of ten
thousand passages takes about a hundred megabytes. Here is what is computed;
:mod:`~cderetrieval.training.families.document` trains the same in torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MismatchError, ModelError, WeightsError
from ..files import as_path, read_tensors, write_tensors
from ..vectors import DENSE, unit
from .directory import AGAIN

# The file of a trained document context, in the directory that training writes; and those that the package brings.
FILE = "document_context.safetensors"
INSTALLED = Path(__file__).parent
# Texts whose vectors tell a base model from others, whatever computes it and with which precision; and how alike the
# vectors of one model are at least. A model that was hardly trained since (cde-minilm on MiniLM: 0.995) counts as it.
PROBE = ("The owl hunts at night.", "What did the company earn in that year?", "import numpy as np")
ALIKE = 0.98
PROBED, FORMAT = "probe", 1
# Passages times texts of the context whose attention is held at a time, and passages whose mixture is.
_SCORES, _ROWS = 1_000_000, 4_096


@dataclass(frozen=True)
class TrainedContextConfig:
    """Name of the base model, dimensions of its vectors, heads of the attention, hidden units of the mixture."""

    base: str
    width: int = 384
    heads: int = 6
    hidden: int = 384

    def __post_init__(self) -> None:
        for name in ("width", "heads", "hidden"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16_384:
                raise ConfigError(f"{name}={value!r} must be a whole number from 1 to 16384.")
        if not isinstance(self.base, str):
            raise ConfigError(f"base={self.base!r} must be the name of a model.")
        if self.width % self.heads:
            raise ConfigError(f"width={self.width} must be a multiple of heads={self.heads}.")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        h, m = self.width, self.hidden
        return {
            **{f"{name}.weight": (h, h) for name in ("query", "key", "value", "out")},
            **{f"{name}.bias": (h,) for name in ("query", "key")},
            "kind": (2, h),
            **{"first.weight": (m, 4 * h), "first.bias": (m,), "second.weight": (h + 3, m), "second.bias": (h + 3,)},
        }


class TrainedContext:
    """A trained document context, ready to be used.

    `tensors` are those of :meth:`TrainedContextConfig.shapes`; `probe` has the base's vectors of :data:`PROBE`.
    """

    def __init__(self, config: TrainedContextConfig, tensors: Mapping[str, np.ndarray], probe: np.ndarray) -> None:
        _check(config, tensors, probe, "these weights")
        self.config = config
        self.tensors = {name: np.asarray(tensors[name], dtype=np.float32) for name in config.shapes()}
        self.probe = np.asarray(probe, dtype=np.float32)
        # Fingerprints of encoders that were found to be of the base.
        self._known: set[str] = set()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of configuration and weights."""
        return _digest(self.config, {**self.tensors, PROBED: self.probe})

    def save_pretrained(self, path: str | Path, *, half: bool = False) -> None:
        """Write ``document_context.safetensors`` into a directory, or a file of that ending; in half precision."""
        path = as_path(path)
        path = path if path.suffix == ".safetensors" else path / FILE
        kind = np.float16 if half else np.float32
        tensors = {name: tensor.astype(kind) for name, tensor in {**self.tensors, PROBED: self.probe}.items()}
        digest = _digest(self.config, tensors)
        metadata = {"format": str(FORMAT), "config": json.dumps(asdict(self.config)), "sha256": digest}
        write_tensors(path, tensors, metadata)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> TrainedContext:
        """Read what :meth:`save_pretrained` wrote; a file that is damaged or of another kind is an error."""
        path = as_path(path)
        path = path / FILE if path.is_dir() else path
        tensors, metadata = read_tensors(path, error=ModelError, remedy=AGAIN)
        try:
            values, number = json.loads(metadata["config"]), int(metadata["format"])
            config = TrainedContextConfig(**{field.name: values[field.name] for field in fields(TrainedContextConfig)})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelError(
                f"{path} is no trained document context: it does not say its shape ({str(error)[:200]}). {AGAIN}"
            ) from error
        if number > FORMAT:
            raise ModelError(f"{path} has format {number}, this version reads up to {FORMAT}: upgrade it.")
        probe = tensors.get(PROBED, np.zeros(0))
        _check(config, {name: tensor for name, tensor in tensors.items() if name != PROBED}, probe, str(path))
        if _digest(config, tensors) != metadata.get("sha256"):
            raise WeightsError(f"{path} is damaged: its numbers are not those that were written. {AGAIN}")
        return cls(config, tensors, probe)

    def check_base(self, encoder: Any) -> None:
        """Refuse an encoder of another model than the one whose vectors this was trained on; each is asked once."""
        fingerprint = plain_encoder(encoder).fingerprint
        if fingerprint in self._known:
            return
        found = probe_of(encoder)
        cosines = (found * self.probe).sum(axis=1) if found.shape == self.probe.shape else np.zeros(1)
        if not (cosines > ALIKE).all():
            raise MismatchError(
                f"this document context was trained on vectors of {self.config.base!r}, and this model makes others "
                f"(cosine {float(cosines.min()):.2f} of the same text). Use that model, train one on yours (recipe "
                "cde-doc-minilm, --base), or leave out trained=."
            )
        self._known.add(fingerprint)

    def __call__(self, passages: np.ndarray, lead: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        """Vectors (n, width) of passages of one document under its lead (width,), all of length 1.

        `context` has the passages of the document that is read, where it is another than their own.
        """
        blocks = self._blocks(passages, lead, passages if context is None else context)
        return np.vstack([vectors for vectors, _ in blocks])

    def weights(self, passages: np.ndarray, lead: np.ndarray) -> np.ndarray:
        """How much (n, 3) of lead, mean and attention the passages of a document take in."""
        return np.vstack([weights for _, weights in self._blocks(passages, lead, passages)])

    def _blocks(
        self, passages: np.ndarray, lead: np.ndarray, others: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Vectors and weights of some passages at a time."""
        tensors, mean = self.tensors, unit(others.mean(axis=0))
        key, value = self._keys(lead, others)
        rows = max(1, min(_ROWS, _SCORES // len(key[0])))
        for start in range(0, len(passages), rows):
            some = passages[start : start + rows]
            read = self._read(some, key, value)
            both = np.broadcast_to(lead, some.shape), np.broadcast_to(mean, some.shape)
            inside = np.hstack([some, *both, read]) @ tensors["first.weight"].T + tensors["first.bias"]
            out = gelu(inside) @ tensors["second.weight"].T + tensors["second.bias"]
            weights, rest = out[:, -3:], out[:, :-3]
            mixed = some + weights[:, :1] * both[0] + weights[:, 1:2] * both[1] + weights[:, 2:] * read + rest
            yield unit(mixed), weights

    def _keys(self, lead: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values (heads, c, width / heads) of lead and passages."""
        tensors = self.tensors
        everything = np.vstack([lead[None], others])
        kinds = np.vstack([tensors["kind"][:1], np.broadcast_to(tensors["kind"][1], others.shape)])
        key = (everything + kinds) @ tensors["key.weight"].T + tensors["key.bias"]
        return self._heads(key), self._heads(everything @ tensors["value.weight"].T)

    def _read(self, passages: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        query = self._heads(passages @ self.tensors["query.weight"].T + self.tensors["query.bias"])
        scores = query @ key.transpose(0, 2, 1) * np.float32(sharpness(self.config))
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        read = (scores / scores.sum(axis=2, keepdims=True)) @ value
        return np.asarray(read.transpose(1, 0, 2).reshape(len(passages), -1) @ self.tensors["out.weight"].T)

    def _heads(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(rows), self.config.heads, -1).transpose(1, 0, 2)


def of_documents(
    module: TrainedContext, vectors: np.ndarray, owners: np.ndarray, leads: np.ndarray, donors: np.ndarray
) -> np.ndarray:
    """Vectors (n, width) of passages of several documents, each of which reads lead and passages of its donor."""
    width = module.config.width
    passages, leads = meaning_of(vectors, width), meaning_of(leads, width)
    found = np.empty_like(passages)
    order = np.argsort(owners, kind="stable")
    names, starts = np.unique(owners[order], return_index=True)
    rows = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
    for name, some in rows.items():
        donor = int(donors[name])
        found[some] = module(passages[some], leads[donor], passages[rows[donor]])
    return found


def sharpness(config: TrainedContextConfig) -> float:
    """Scale of the attention's scores: vectors have length 1, not one of each dimension."""
    return 10 / math.sqrt(config.width // config.heads)


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact form, as torch has it."""
    from scipy.special import erf

    return np.asarray(0.5 * x * (1 + erf(x * np.float32(1 / math.sqrt(2)))))


def meaning_of(vectors: np.ndarray, width: int) -> np.ndarray:
    """What vectors say beside their term dimensions, of length 1."""
    return unit(np.asarray(vectors, dtype=np.float32)[:, :width])


def plain_encoder(model: Any) -> Any:
    """The encoder inside a model or an encoder that puts statistics of a corpus on top; it has to be a dense one."""
    while hasattr(model, "named_after"):
        model = model.named_after
    if getattr(model, "kind", None) != DENSE:
        raise ConfigError(
            f"{type(model).__name__} makes no dense vectors, which a trained document context is made of: take a dense "
            "model, or leave out trained=."
        )
    return model


def probe_of(model: Any) -> np.ndarray:
    """Vectors of :data:`PROBE`, of length 1, by the encoder inside."""
    return unit(np.asarray(plain_encoder(model).encode_document(list(PROBE)), dtype=np.float32))


def installed_names() -> list[str]:
    """Names of the trained document contexts that the package brings."""
    return sorted(path.stem for path in INSTALLED.glob("cde-doc-*.safetensors"))


def trained_context(name: str) -> TrainedContext:
    """A trained document context by an installed name, or from a file or directory; kept in memory."""
    path = INSTALLED / f"{name}.safetensors" if name in installed_names() else as_path(name)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise ModelError(
            f"trained={name!r} is neither one of {', '.join(installed_names()) or 'none'} nor a file or directory of a "
            "trained document context."
        )
    state = path.stat()
    return _loaded(path.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _loaded(path: Path, changed: int, size: int) -> TrainedContext:
    del changed, size
    return TrainedContext.from_pretrained(path)


def _digest(config: TrainedContextConfig, tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}{array.shape}{array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()


def _check(config: TrainedContextConfig, tensors: Mapping[str, np.ndarray], probe: np.ndarray, source: str) -> None:
    """Refuse tensors that are missing, of another shape, not finite, or that nobody asked for."""
    shapes = {**config.shapes(), PROBED: (len(PROBE), config.width)}
    given = {**tensors, PROBED: probe}
    problems = [f"missing: {name}" for name in shapes if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in shapes]
    for name in shapes.keys() & given.keys():
        if given[name].shape != shapes[name]:
            problems.append(f"wrong shape: {name} is {given[name].shape}, the model has {shapes[name]}")
        elif given[name].dtype.kind != "f" or not np.isfinite(given[name]).all():
            problems.append(f"no finite numbers: {name}")
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise WeightsError(f"{source} does not fit a trained document context:\n  {listing}\n{AGAIN}")
