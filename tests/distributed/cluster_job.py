"""Embeds a corpus on two simulated machines, of which something happens to one: run by test_cluster.py.

python cluster_job.py KIND FOLDER MODEL...
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from cderetrieval.distributed import embed_corpus
from cderetrieval.testing import HashEncoder

BLOCK = 5


class Fated(HashEncoder):
    """Notes where it runs, takes its time, and dies once, or each time that it meets a certain text."""

    def __init__(self, folder, deaths=0, pause=0.2):
        super().__init__()
        self.folder, self.deaths, self.pause = folder, deaths, pause

    def encode_document(self, texts, *, show_progress=False):
        import ray

        time.sleep(self.pause)
        (self.folder / f"node-{ray.get_runtime_context().get_node_id()}").touch()
        note = self.folder / "deaths"
        if any(text.endswith(" 42") for text in texts) and note.stat().st_size < self.deaths:
            with open(note, "ab") as file:
                file.write(b".")
            os._exit(1)
        return super().encode_query(texts)


@contextlib.contextmanager
def two_machines():
    """Two CPUs each; all in all two more than workers take."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


def remove(cluster, node, folder, found):
    """Take one machine away once both have worked and half of the blocks are done."""
    vectors = folder / "vectors" / "vectors"
    while len(list(folder.glob("node-*"))) < 2 or len(list(vectors.glob("*.parquet"))) < 8:
        time.sleep(0.05)
    cluster.remove_node(node)
    found.append(len(list(vectors.glob("*.parquet"))))


def main(kind, folder, models):
    corpus, out = folder / "corpus.jsonl", folder / "vectors"
    with two_machines() as (cluster, second):
        engine = {"engine": "ray", "workers": 2, "block": BLOCK}
        found = []
        if kind == "families":
            for number, model in enumerate(models):
                embed_corpus(corpus, folder / f"vectors-{number}", model, **engine)
        elif kind == "node":
            threading.Thread(target=remove, args=(cluster, second, folder, found), daemon=True).start()
            embed_corpus(corpus, out, Fated(folder), **engine)
        elif kind == "worker":
            embed_corpus(corpus, out, Fated(folder, deaths=1), **engine)
        elif kind == "always":
            embed_corpus(corpus, out, Fated(folder, deaths=99, pause=0.0), **engine)
        elif kind == "driver":
            threading.Thread(target=kill, args=(out,), daemon=True).start()
            embed_corpus(corpus, out, Fated(folder), **engine)
        nodes = len(list(folder.glob("node-*")))
    sys.stdout.write(json.dumps({"nodes": nodes, "before": found}) + "\n")


def kill(out):
    while len(list((out / "vectors").glob("*.parquet"))) < 6:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
