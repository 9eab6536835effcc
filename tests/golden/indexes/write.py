"""Write the golden indexes beside this file: one zip of each kind, and what each answers.

    git archive REVISION | tar x -C /tmp/old
    PYTHONPATH=/tmp/old python tests/golden/indexes/write.py 0.1.0

They hold what released code wrote, so they are never written again with newer code.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from cderetrieval import Hybrid, Retriever, testing

HERE = Path(__file__).parent
DOCUMENTS = [
    {"id": "owl", "title": "Owls", "text": "hunt mice at night", "year": 2019, "language": "en"},
    {"id": "bee", "title": "Bees", "text": "make honey from nectar", "year": 2020, "language": "en"},
    {"id": 7, "title": "Whales", "text": "sing songs under water", "year": 2021, "language": "en"},
    {"id": "eule", "title": "Eulen", "text": "jagen Mäuse", "year": 2022, "language": "de"},
    {"id": "ant", "title": "Ants", "text": "carry leaves to the nest", "year": 2023, "language": "en"},
    {"id": "fox", "title": "Foxes", "text": "dig dens and hunt rabbits", "year": 2024},
]
MORE = {"id": "bat", "title": "Bats", "text": "hunt insects at night by their echo", "year": 2025, "language": "en"}
QUERIES = ["who hunts mice at night?", "honey of the bees", "songs of whales"]
FILTER = {"year": {">=": 2020}, "language": "en"}


def shrink():
    """Make the tiny models tinier: 16 dimensions, one layer, no pairs of letters."""
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    testing._SHAPE.update(tiny, max_position_embeddings=64)
    testing.BACKBONES["bert"].update(tiny, max_position_embeddings=64)
    tokenizer = testing.tiny_tokenizer
    testing.tiny_tokenizer = lambda **_: tokenizer()


def write_models(folder):
    """Write one model of each family that has weights."""
    shrink()
    testing.tiny_model(context_size=3).save_pretrained(folder / "contextual")
    shutil.copytree(testing.tiny_dense_directory(), folder / "dense")
    testing.tiny_splade().save_pretrained(folder / "splade")
    testing.tiny_sparse_embed(embedding_size=4).save_pretrained(folder / "sparse-embed")


def build(path):
    """Write an index of each kind; yield its name, where it is, and the index.

    Models are named by paths relative to this directory.
    """
    single = {
        "bm25": ("bm25", {}),
        "dense": ("models/dense", {}),
        "dense_hnsw": ("models/dense", {"index": "HNSW8"}),
        "centre": ("centre:models/dense", {}),
        "centre_by_context": ("models/dense", {"context": "centre"}),
        "contextual": ("models/contextual", {"context_size": 3}),
        "contextual_null": ("models/contextual", {"context": None}),
        "contextual_random": ("models/contextual", {"context": "random"}),
        "splade": ("models/splade", {}),
        "sparse_embed": ("models/sparse-embed", {}),
        "default": ("cde-minilm", {}),
    }
    for name, (model, options) in single.items():
        yield name, name, Retriever(model, path=path / name, **options)
    yield "ready_vectors", "ready_vectors", Retriever(testing.HashEncoder(), path=path / "ready_vectors")
    (path / "milvus_lite").mkdir()
    location = "milvus_lite/index.db/documents"
    yield "milvus_lite", location, Retriever("models/dense", index=str(path / location))
    hybrids = {
        "hybrid": (["models/dense", "bm25"], {}),
        "hybrid_of_four": (
            {"a": "models/contextual", "b": "bm25", "c": "models/splade", "d": "models/sparse-embed"},
            {"fusion": "weighted", "weights": [0.4, 0.3, 0.2, 0.1], "context_size": 3},
        ),
        "hybrid_default": (["cde-minilm", "bm25"], {}),
    }
    for name, (parts, options) in hybrids.items():
        yield name, name, Hybrid(parts, path=path / name, **options)
    yield "hybrid_saved", "hybrid_saved", Hybrid({"d": "models/dense", "s": "models/splade"}, fusion="weighted")


def vectors(count):
    """Ready vectors, the same everywhere."""
    made = np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def fill(name, index):
    """Add the documents in two calls, replace one, and remove one."""
    if name == "ready_vectors":
        index.add(DOCUMENTS, vectors=vectors(len(DOCUMENTS)))
        return
    index.add([*DOCUMENTS[:4], {"id": "gone", "title": "Gone", "text": "with the wind"}])
    index.add([*DOCUMENTS[4:], DOCUMENTS[0]])
    index.remove("gone")


def answers(name, index):
    """What the index answers: hits of all queries, and of those with a filter."""
    queries = vectors(3) if name == "ready_vectors" else QUERIES
    return [
        [[[hit["id"], hit["similarity"]] for hit in hits] for hits in index(queries, k=4, filter=condition)]
        for condition in (None, FILTER)
    ]


def change(name, index):
    """Add one document and remove another."""
    index.add([MORE], **({"vectors": vectors(1)} if name == "ready_vectors" else {}))
    index.remove("bee")


def main(version):
    """Write every kind under the name of a version."""
    folder = HERE / version
    folder.mkdir()
    if not (HERE / "models").exists():
        write_models(HERE / "models")
    expected = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary)
        for name, location, index in build(path):
            fill(name, index)
            before = answers(name, index)
            if name == "hybrid_saved":
                index.save(path / name)
            index.close()
            shutil.make_archive(str(folder / name), "zip", path / Path(location).parts[0])
            kind = type(index).__name__
            options = {"model": testing.HashEncoder()} if name == "ready_vectors" else {}
            index = type(index).load(f"{path}/{location}", **options)
            change(name, index)
            expected[name] = {"location": location, "class": kind, "before": before, "after": answers(name, index)}
            index.close()
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
