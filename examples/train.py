"""Train a model on pairs of queries and documents, two steps of it, and search with what came out.

For a real run leave `max_steps` and the sizes to the recipe: docs/training.md.
"""

import json
import tempfile
from pathlib import Path

from cderetrieval import Retriever
from cderetrieval.training import load_recipe, train

PAIRS = [(f"what is thing {n}", f"thing {n} is a thing of kind {n % 3}") for n in range(16)]
SMALL = {
    "max_length": 32,
    "surrogate_length": 32,
    "batch_size": 8,
    "cluster_size": 8,
    "context_size": 8,
    "max_steps": 2,
}

with tempfile.TemporaryDirectory() as temporary:
    pairs = Path(temporary) / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps({"query": q, "document": d, "domain": "things"}) for q, d in PAIRS))
    recipe = load_recipe("minilm").replace(data=(str(pairs),), negatives=0, **SMALL)
    train(recipe, Path(temporary) / "run")
    retriever = Retriever(Path(temporary) / "run" / "model").add([document for _, document in PAIRS])
    print(retriever("what is thing 7", k=1)[0])
