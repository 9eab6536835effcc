"""Programs written for sparsembed run after changing their import: each kind of block of its README, in our own words.

The blocks run one after the other, each in a namespace of its own, in an empty working directory. A tiny model's
directory stands in for the hub's names; the data set lies where `load_beir` looks before it downloads.
"""

import os

import pytest
import torch

from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.sparsembed import model as models
from cderetrieval.testing import tiny_masked_lm

# Blocks say device="cpu" where the README leaves a choice.
DOCUMENTS = """
documents = [
    {"id": 0, "title": "Owls", "url": "https://example.org/owls", "text": "Owls hunt at night and rest by day."},
    {"id": 1, "title": "Bees", "url": "https://example.org/bees", "text": "Bees collect nectar and make honey of it."},
    {"id": 2, "title": "Deer", "url": "https://example.org/deer", "text": "Deer live in forests and eat leaves."},
]
"""

RETRIEVE = """
from cderetrieval.sparsembed import model, retrieve
from transformers import AutoModelForMaskedLM, AutoTokenizer

device = "cpu"
batch_size = 10
{documents}
model = model.{model}(
    model=AutoModelForMaskedLM.from_pretrained("some/masked-lm").to(device),
    tokenizer=AutoTokenizer.from_pretrained("some/masked-lm"),
    device=device
)

retriever = retrieve.{model}Retriever(
    key="id", # Key identifier of each document.
    on=["title", "text"], # Fields to search.
    model=model
)

retriever = retriever.add(
    documents=documents,
    batch_size=batch_size,
    k_tokens=256, # Number of activated tokens.
)

answers = retriever(
    ["owls", "honey bees"], # Queries
    k_tokens=20, # Maximum number of activated tokens.
    k=100, # Number of documents to retrieve.
    batch_size=batch_size
)
"""

BUILD = """
from cderetrieval.sparsembed import model
from transformers import AutoModelForMaskedLM, AutoTokenizer

device = "cpu"

model = model.{model}(
    model=AutoModelForMaskedLM.from_pretrained("some/masked-lm").to(device),
    tokenizer=AutoTokenizer.from_pretrained("some/masked-lm"),
    {settings}
    device=device,
)
"""

TRAIN = """
from transformers import AutoModelForMaskedLM, AutoTokenizer, optimization
from cderetrieval.sparsembed import model, utils, train, retrieve, losses
import torch

device = "cpu" # cpu or cuda
batch_size = 8
epochs = 1 # Number of times the model will train over the whole dataset.

model = model.{model}(
    model=AutoModelForMaskedLM.from_pretrained("some/masked-lm").to(device),
    tokenizer=AutoTokenizer.from_pretrained("some/masked-lm"),
    device=device
)
before = model.scores(["what do bees make"], ["bees make honey"]).item()

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

scheduler = optimization.get_linear_schedule_with_warmup(
    optimizer=optimizer,
    num_warmup_steps=6000,
    num_training_steps=4_000_000,
)

flops_scheduler = losses.FlopsScheduler(weight=1e-4, steps=50_000)

X = [
    ("what do bees make", "bees make honey", "owls hunt at night"),
    ("when do owls hunt", "owls hunt at night", "deer eat leaves"),
    ("what do deer eat", "deer eat leaves", "bees make honey"),
]

seen = []
for anchor, positive, negative in utils.iter(
        X,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=True
    ):
        loss = train.{train}(
            model=model,
            optimizer=optimizer,
            {settings}
            anchor=anchor,
            positive=positive,
            negative=negative,
            flops_loss_weight=flops_scheduler.get(),
            {more}
        )

        scheduler.step()
        flops_scheduler.step()
        seen.append(loss)

# Save the model.
model.save_pretrained("checkpoint-{model}")

# Beir benchmark for evaluation.
documents, queries, qrels = utils.load_beir("animals", split="test")

retriever = retrieve.{model}Retriever(
    key="id",
    on=["title", "text"],
    model=model
)

retriever = retriever.add(
    documents=documents,
    batch_size=batch_size,
    k_tokens=96,
)

scores = utils.evaluate(
    retriever=retriever,
    batch_size=batch_size,
    qrels=qrels,
    queries=queries,
    k=100,
    k_tokens=96,
    metrics=["map", "ndcg@10", "ndcg@10", "recall@10", "hits@10"]
)
"""

LOAD = """
from cderetrieval.sparsembed import model

device = "cpu"

model = model.{model}(
    model_name_or_path="checkpoint-{model}",
    device=device,
)
"""

USE = """
encoded = model.encode(["deer and owls, forests at night"])

scores = model.scores(
    queries=["owls", "bees"],
    documents=["owls hunt at night", "bees make honey"],
    batch_size=32,
)

decoded = model.decode(**model.encode(["deer and owls, forests at night"]))
"""


@pytest.fixture
def block(tmp_path, monkeypatch):
    """Run a block in a fresh namespace and return it."""
    monkeypatch.chdir(tmp_path)
    masked, tokenizer = tiny_masked_lm()
    masked.save_pretrained("some/masked-lm")
    tokenizer.save_pretrained("some/masked-lm")
    corpus = [
        {"id": "d1", "title": "owls", "text": "owls hunt at night"},
        {"id": "d2", "title": "bees", "text": "bees make honey"},
    ]
    data = make_dataset("animals", corpus, {"q1": "owls at night", "q2": "honey"}, {"q1": {"d1": 1}, "q2": {"d2": 1}})
    write_beir(data, "evaluation_datasets/animals")

    def block(code, **names):
        exec(code, names)  # noqa: S102
        return names

    return block


@pytest.mark.parametrize("model", ["Splade", "SparsEmbed"])
def test_retrieval(block, model):
    names = block(RETRIEVE.format(model=model, documents=DOCUMENTS))
    owls, bees = names["answers"]
    assert (owls[0]["id"], bees[0]["id"]) == (0, 1)
    for hits in (owls, bees):
        similarities = [hit["similarity"] for hit in hits]
        assert similarities == sorted(similarities, reverse=True)
        assert all(set(hit) == {"id", "similarity"} and hit["similarity"] > 0 for hit in hits)
    assert len(names["retriever"]) == 3


@pytest.mark.parametrize(
    ("model", "settings", "size", "terms"),
    [("Splade", "", None, None), ("SparsEmbed", "embedding_size=64, k_tokens=96,", 64, 96)],
)
def test_models(block, model, settings, size, terms):
    built = block(BUILD.format(model=model, settings=settings))["model"]
    assert type(built) is getattr(models, model)
    assert (getattr(built.model, "embedding_size", None), built.k_tokens) == (size, terms)


@pytest.mark.parametrize(
    ("model", "train", "settings", "more", "losses"),
    [
        ("Splade", "train_splade", "", "", {"sparse", "flops"}),
        (
            "SparsEmbed",
            "train_sparsembed",
            "k_tokens=96,",
            "sparse_loss_weight=0.1,",
            {"dense", "sparse", "flops"},
        ),
    ],
)
def test_training_evaluation_and_loading(block, model, train, settings, more, losses):
    names = block(TRAIN.format(model=model, train=train, settings=settings, more=more))
    [loss] = names["seen"]
    assert set(loss) == losses
    assert names["scores"]["hits@10"] == names["scores"]["recall@10"] == 1.0
    assert set(names["scores"]) == {"map", "ndcg@10", "recall@10", "hits@10"}
    trained = names["model"]
    loaded = block(LOAD.format(model=model))["model"]
    pairs = (["owls", "bees"], ["owls hunt at night", "bees make honey"])
    assert torch.equal(loaded.scores(*pairs), trained.scores(*pairs))
    assert loaded.max_length == trained.max_length
    assert not list(names for names in os.listdir(f"checkpoint-{model}") if names.endswith((".pt", ".bin")))


@pytest.mark.parametrize("model", ["Splade", "SparsEmbed"])
def test_use(block, model):
    built = block(BUILD.format(model=model, settings=""))["model"]
    names = block(USE, model=built)
    assert names["scores"].shape == (2,)
    assert (names["scores"] > 0).all()
    assert names["encoded"]["sparse_activations"].shape == (1, 1461)
    [text] = names["decoded"]
    assert {"de", "fo"} <= set(text.split()), text
