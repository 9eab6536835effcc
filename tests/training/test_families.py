"""Dense, SPLADE and SparseEmbed through the same training as contextual models."""

import json

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from cderetrieval.cli import main
from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.errors import ConfigError, InputError, MismatchError, ModelError, TrainingError
from cderetrieval.models.load import load
from cderetrieval.models.locate import installed_minilm
from cderetrieval.testing import tiny_model_directory, tiny_tokenizer
from cderetrieval.training import run, trainer
from cderetrieval.training.checkpoints import mark_whole
from cderetrieval.training.recipes import Recipe, load_recipe
from cderetrieval.training.run import prepare, train

pytest.importorskip("accelerate")

FAMILIES = ("dense", "splade", "sparse-embed")


def write_masked_lm(directory, **settings):
    from transformers import BertConfig, BertForMaskedLM

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A masked language model."""
    return write_masked_lm(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory):
    """The same, but two passes of a batch are equal."""
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return write_masked_lm(tmp_path_factory.mktemp("without-dropout"), **settings)


def tiny(base, folder, architecture, **changes):
    sparse = {} if architecture == "dense" else {"query_flops": 1e-3, "document_flops": 1e-3, "scale": 0.1}
    own = {"sparse-embed": {"model": {"embedding_size": 8, "k_tokens": 12, "query_k_tokens": 6}}}
    values = {
        "name": "tiny",
        "base": base,
        "architecture": architecture,
        "data": [str(folder)],
        "small_domains": "merge",
        "clusters": False,
        "filter": "off",
        "max_length": 24,
        "negatives": 1,
        "batch_size": 8,
        "scale": 20.0,
        "chunk_tokens": 64,
        "dtype": "float32",
        "epochs": 1.0,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "log_steps": 1,
        "save_steps": 3,
        **sparse,
        **own.get(architecture, {}),
    }
    return Recipe.from_dict({**values, **changes})


def log_of(output):
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


def vectors_of(encoder, texts=("the amber and the dune of 3", "kelp")):
    found = encoder.encode_document(list(texts))
    if encoder.kind == "dense":
        return found
    return found.toarray() if encoder.kind == "sparse" else found.embeddings


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_on_a_processor(base, folder, tmp_path, monkeypatch, caplog, supported):
    asked = []
    plain = trainer.trained_attention
    monkeypatch.setattr(trainer, "trained_attention", lambda *given: asked.append(given) or plain(*given))
    monkeypatch.setattr(run, "supports_bfloat16", lambda device: supported)
    train(tiny(base, folder, "dense", dtype="bfloat16", max_steps=1, negatives=0), tmp_path / "run")
    ((device, dtype, tokens),) = asked
    assert (device.type, dtype) == ("cpu", "bfloat16")
    assert 0 < tokens <= 24
    assert ("dtype='float32' is faster" in caplog.text) is not supported


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_run_leaves_a_model_a_card_and_a_log(base, folder, tmp_path, cache, architecture):
    rate = 5e-3 if architecture == "dense" else 1e-2
    recipe = tiny(base, folder, architecture, negatives=0, epochs=3.0, learning_rate=rate)
    trained = train(recipe, tmp_path / "run", cache=cache)
    loaded = load(str(tmp_path / "run" / "model"), device="cpu")
    assert type(loaded) is type(trained)
    np.testing.assert_allclose(vectors_of(loaded), vectors_of(trained), atol=1e-5)
    assert loaded.settings.max_length == 24
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "- mined.jsonl\n- plain.jsonl.gz\n" in card
    assert f"| architecture | `{architecture}` |" in card
    log = log_of(tmp_path / "run")
    assert {"loss", "learning_rate", "grad_norm", "step_seconds"} <= set(log[1])
    losses = [line["loss"] for line in log.values()]
    assert np.mean(losses[-8:]) < 0.95 * np.mean(losses[:8])
    assert not list((tmp_path / "run").rglob("training_args.bin"))


@pytest.mark.parametrize("architecture", ["splade", "sparse-embed"])
def test_sparsity_and_the_ramp_are_logged(base, folder, tmp_path, cache, architecture):
    recipe = tiny(base, folder, architecture, flops_ramp=1.0, max_steps=8)
    train(recipe, tmp_path / "run", cache=cache)
    log = log_of(tmp_path / "run")
    assert {"query_active", "document_active", "flops", "document_regularizer_loss"} <= set(log[1])
    assert 1 <= log[1]["query_active"] <= 128
    assert 0 < log[1]["flops"] <= 128
    weights = [line["query_regularizer_weight"] for line in log.values()]
    np.testing.assert_allclose(weights, [1e-3 * (step / 8) ** 2 for step in range(8)], rtol=1e-6)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_run_goes_on_with_the_same_batches_and_losses(base, folder, tmp_path, cache, architecture):
    recipe = tiny(base, folder, architecture, max_steps=8)
    whole = train(recipe, tmp_path / "whole", cache=cache)

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", cache=cache, on_ready=lambda t: t.add_callback(Stop()))
    again = train(recipe, tmp_path / "run", cache=cache, resume=True)
    first, second = log_of(tmp_path / "whole"), log_of(tmp_path / "run")
    assert list(first) == list(second)
    for step, line in first.items():
        for name in {"loss", "grad_norm", "learning_rate", "query_regularizer_weight"} & set(line):
            assert second[step][name] == pytest.approx(line[name], rel=1e-5), (step, name)
    np.testing.assert_allclose(vectors_of(again), vectors_of(whole), atol=1e-5)
    with pytest.raises(MismatchError, match=r"another architecture: .*max_length was 24, is 20"):
        train(recipe.replace(max_length=20), tmp_path / "run", cache=cache, resume=True)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_checkpoint_that_names_code_is_refused(base, folder, tmp_path, cache, monkeypatch, architecture):
    """Also where the digests of its files are right."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "payload.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\nclass Transformer: pass\n")
    recipe = tiny(base, folder, architecture, max_steps=1, save_steps=1)
    train(recipe, tmp_path / "run", cache=cache)
    checkpoint = tmp_path / "run" / "checkpoint-1"
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[0]["type"] = "payload.Transformer"
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    mark_whole(checkpoint, {k: v for k, v in json.loads((checkpoint / "run.json").read_text()).items() if k != "files"})
    with pytest.raises(ModelError, match=r"payload\.Transformer"):
        train(recipe, tmp_path / "run", cache=cache, resume=True)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_tokens": None, "symmetric": True, "negatives": 0},
        {"dtype": "bfloat16", "negatives": 2, "checkpointing": True, "accumulation": 2},
        {"clusters": True, "cluster_size": 8, "cluster_dimensions": None, "packing": "tour"},
    ],
)
def test_every_switch_trains(base, folder, tmp_path, cache, architecture, changes):
    recipe = tiny(base, folder, architecture, max_steps=1, surrogate=base, **changes)
    train(recipe, tmp_path / "run", cache=cache)
    assert np.isfinite([line["loss"] for line in log_of(tmp_path / "run").values()]).all()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_gradient_caching_changes_nothing(without_dropout, folder, tmp_path, cache, architecture):
    found = {}
    for chunk in (None, 40):
        recipe = tiny(without_dropout, folder, architecture, max_steps=3, chunk_tokens=chunk, learning_rate=1e-2)
        model = train(recipe, tmp_path / str(chunk), cache=cache)
        found[chunk] = [(line["loss"], line["grad_norm"]) for line in log_of(tmp_path / str(chunk)).values()]
        found[chunk].append(tuple(vectors_of(model).ravel()[:2]))
    np.testing.assert_allclose(found[None], found[40], rtol=1e-3)


def test_a_backbone_gets_the_recipes_pooling(base, folder, tmp_path, cache):
    recipe = tiny(base, folder, "dense", max_steps=1, model={"pooling": "cls", "normalize": True})
    train(recipe, tmp_path / "run", cache=cache)
    loaded = load(str(tmp_path / "run" / "model"), device="cpu")
    assert loaded.model[1].pooling_mode in ("cls", ("cls",), ["cls"])
    with pytest.raises(ConfigError, match="model has unknown settings poling; architecture='dense' has pooling"):
        train(recipe.replace(model={"poling": "cls"}), tmp_path / "other", cache=cache)


def test_models_that_are_no_transformers_are_refused(folder, tmp_path, cache):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "static"))
    with pytest.raises(ConfigError, match="static is made of StaticEmbedding: only transformers are trained here"):
        train(tiny(str(tmp_path / "static"), folder, "dense"), tmp_path / "run", cache=cache)
    with pytest.raises(ConfigError, match="is a contextual model: architecture='dense' would ignore its context"):
        train(tiny(tiny_model_directory(), folder, "dense"), tmp_path / "run", cache=cache)


def test_queries_of_an_inference_free_model_are_not_trained(base, folder, tmp_path, cache):
    recipe = tiny(base, folder, "splade", max_steps=3, model={"inference_free": True}, query_flops=0.0)
    trained = train(recipe, tmp_path / "run", cache=cache)
    found = trained.encode_query(["kelp"])
    assert sorted(trained.tokenizer.convert_ids_to_tokens(found.indices.tolist())) == ["##e", "##l", "##p", "k"]
    assert set(found.data.tolist()) == {1.0}


def scored(folder, write_jsonl, example, **changes):
    rows = [{**example(k, "a", 2), "scores": [5.0, 1.0, float(k % 3)], **changes} for k in range(24)]
    write_jsonl(folder / "scored" / "scored.jsonl", rows)
    return folder / "scored"


@pytest.mark.parametrize(
    ("architecture", "distillation", "chunk_tokens"),
    [
        ("splade", "margin-mse", None),
        ("splade", "kl", 64),
        ("sparse-embed", "margin-mse", 64),
        ("sparse-embed", "kl", None),
    ],
)
def test_a_teacher_is_distilled(
    base, folder, tmp_path, cache, write_jsonl, example, architecture, distillation, chunk_tokens
):
    data = scored(folder, write_jsonl, example)
    recipe = tiny(base, data, architecture, distillation=distillation, negatives=2, epochs=4.0)
    recipe = recipe.replace(chunk_tokens=chunk_tokens, learning_rate=3e-3, query_flops=0.0, document_flops=0.0)
    train(recipe, tmp_path / "run", cache=cache)
    losses = [line["loss"] for line in log_of(tmp_path / "run").values()]
    assert losses[-1] < losses[0] * 0.8


def test_distillation_needs_a_score_for_every_document(base, folder, tmp_path, cache, write_jsonl, example):
    recipe = tiny(base, folder, "splade", distillation="kl")
    with pytest.raises(InputError, match=r"plain, line 1 has fewer than 1 negatives, as 44 of 84 rows"):
        prepare(recipe, cache)
    with pytest.raises(InputError, match=r"mined, line 1 has no 'scores' of a teacher, as 40 of 40 rows"):
        prepare(recipe.replace(data=[str(folder / "mined.jsonl")]), cache)
    with pytest.raises(ConfigError, match="set negatives to 1 or more"):
        recipe.replace(negatives=0)
    data = scored(folder, write_jsonl, example, scores=[1.0, 2.0])
    with pytest.raises(InputError, match=r"line 1: field 'scores' must list .* its 2 negatives, 3 numbers; found \[1"):
        prepare(recipe.replace(data=[str(data)]), cache)


@pytest.mark.parametrize("architecture", ["splade", "sparse-embed"])
def test_a_collapse_stops_the_run_with_advice(base, folder, tmp_path, cache, architecture):
    def collapse(trainer):
        with torch.no_grad():
            trainer.model[0].model.get_output_embeddings().bias.fill_(-1e3)

    recipe = tiny(base, folder, architecture)
    with pytest.raises(TrainingError, match=r"collapsed: at step 1 a document has 0\.00 .* smaller document_flops"):
        train(recipe, tmp_path / "run", cache=cache, on_ready=collapse)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_loss_that_is_not_finite_stops_and_names_the_batch(base, folder, tmp_path, cache, architecture):
    def spoil(trainer):
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"the loss is nan at step 1, in the batch of rows \d+"):
        train(tiny(base, folder, architecture), tmp_path / "run", cache=cache, on_ready=spoil)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_no_text_stands_twice_in_a_batch(base, tmp_path, cache, write_jsonl, architecture):
    rows = [{"query": f"owl {k % 7}", "document": f"bee {k % 5} {k // 35}"} for k in range(70)]
    write_jsonl(tmp_path / "data" / "few.jsonl", rows)
    recipe = tiny(base, tmp_path / "data", architecture, batch_size=4, negatives=0, max_steps=6)
    seen = []

    def note(trainer):
        step = trainer.training_step
        trainer.training_step = lambda model, inputs, *rest: (
            seen.append(inputs["row"].tolist()),
            step(model, inputs, *rest),
        )[1]

    train(recipe, tmp_path / "run", cache=cache, on_ready=note)
    assert len(seen) == 6
    for batch in seen:
        assert len({rows[row]["query"] for row in batch}) == len({rows[row]["document"] for row in batch}) == 4


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("dense", {"filter": "stored"}, "architecture='dense' has no filter: set it to 'off', not 'stored'"),
        ("dense", {"query_flops": 0.1}, "architecture='dense' has no query_flops"),
        ("splade", {"null_probability": 0.1}, "architecture='splade' has no null_probability"),
        ("splade", {"query_flops": -1}, "query_flops=-1 must be a number of at least 0"),
        ("splade", {"flops_ramp": 0}, "flops_ramp=0 must be above 0"),
        ("splade", {"flops_ramp": 2}, "flops_ramp=2 must lie in"),
        ("sparse-embed", {"distillation": "mse"}, "distillation='mse' is unknown; use one of none, margin-mse, kl"),
    ],
)
def test_settings_of_another_architecture_are_refused(base, folder, architecture, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(base, folder, architecture, **changes)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_training_is_evaluated_on_beir_folders(base, folder, tmp_path, architecture, capsys):
    corpus = [{"id": name, "title": "", "text": name} for name in ("owls", "bees", "pines")]
    write_beir(make_dataset("toy", corpus, {"q": "bees"}, {"q": {"bees": 1}}), tmp_path / "toy")
    recipe = tiny(base, folder, architecture, max_steps=2, evaluate_steps=1)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    arguments = ["train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--evaluate", f"{tmp_path / 'toy'}:test"]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "eval_toy" in line]
    assert [line["step"] for line in scores] == [1, 2]
    assert all(0 <= line["eval_toy"] <= 1 for line in scores)
    assert "| toy |" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "chunk_tokens"), [("dense", 64), ("splade", None), ("splade", 64), ("sparse-embed", 64)]
)
def test_two_processes_that_share_negatives_are_one(
    without_dropout, folder, tmp_path, cache, train_in_two, architecture, chunk_tokens
):
    """Two batches of four are one of eight, but for the regularisers, which see each process's own texts."""
    recipe = tiny(without_dropout, folder / "mined.jsonl", architecture, chunk_tokens=chunk_tokens, max_steps=3)
    if architecture != "dense":
        recipe = recipe.replace(query_flops=0.0, document_flops=0.0)
    whole = train(recipe, tmp_path / "whole", cache=cache)
    recipe = recipe.replace(batch_size=4, share_negatives=True)
    one, two = train_in_two(recipe, tmp_path / "run")
    assert one["weights"] == two["weights"]
    np.testing.assert_allclose(vectors_of(load(tmp_path / "run" / "model")), vectors_of(whole), rtol=1e-3, atol=1e-4)
    first, second = log_of(tmp_path / "whole"), log_of(tmp_path / "run")
    assert [second[k]["loss"] for k in (1, 2, 3)] == pytest.approx([first[k]["loss"] for k in (1, 2, 3)], rel=1e-4)
    recipe = recipe.replace(data=[str(folder)])
    with pytest.raises(InputError, match=r"fewer than 1 negatives, .* sharing negatives between processes needs them"):
        prepare(recipe, cache, processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["splade-minilm", "sparse-embed-minilm"])
def test_the_small_recipes_train_from_minilm(folder, tmp_path, cache, name):
    if installed_minilm() is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    recipe = load_recipe(name).replace(data=[str(folder)], batch_size=4, max_steps=1, warmup_steps=0)
    trained = train(recipe, tmp_path / "run", cache=cache)
    query, document = trained.encode_query(["kelp"]), trained.encode_document(["amber and the dune"])
    assert getattr(query, "weights", query).nnz > 0
    assert getattr(document, "weights", document).shape == (1, 30_522)
