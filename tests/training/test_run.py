import errno
import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from cderetrieval import Retriever
from cderetrieval.errors import ConfigError, MismatchError, ModelError, StoreError, TrainingError
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.load import STATISTICS, load
from cderetrieval.models.locate import installed_minilm
from cderetrieval.models.statistics import StatisticsConfig, StatisticsModel
from cderetrieval.testing import tiny_dense_directory, tiny_model, tiny_model_directory
from cderetrieval.training.checkpoints import last_checkpoint
from cderetrieval.training.families.contextual import model_config, start_model
from cderetrieval.training.recipes import Recipe, load_recipe, recipe_names
from cderetrieval.training.run import prepare, train

pytest.importorskip("accelerate")


def tiny(folder, **changes):
    values = {
        "name": "tiny",
        "base": tiny_model_directory(),
        "data": [str(folder)],
        "surrogate": tiny_model_directory(),
        "small_domains": "merge",
        "max_length": 24,
        "negatives": 1,
        "cluster_size": 8,
        "cluster_dimensions": 8,
        "batch_size": 8,
        "context_size": 4,
        "null_probability": 0.3,
        "sequence_dropout": 0.2,
        "chunk_tokens": 64,
        "dtype": "float32",
        "epochs": 2.0,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "log_steps": 1,
        "save_steps": 3,
    }
    return Recipe.from_dict({**values, **changes})


PLAIN = {
    "architecture": "biencoder",
    "model": {"head": "none", "soft_prompt_tokens": 0},
    "null_probability": 0.0,
    "sequence_dropout": 0.0,
    "max_steps": 2,
}


def log_of(output):
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "masked_duplicates" in line}


class Batches(TrainerCallback):
    """Notes the rows of every step; may do something at a step."""

    def __init__(self, trainer, at=None, action=None):
        self.rows, self.at, self.action = [], at, action
        step = trainer.training_step

        def noted(model, inputs, *rest):
            self.rows.append(inputs["label"].tolist())
            return step(model, inputs, *rest)

        trainer.training_step = noted
        trainer.add_callback(self)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            self.action()


def run(recipe, output, cache, *, at=None, action=None, **extra):
    seen = []
    model = train(recipe, output, cache=cache, on_ready=lambda t: seen.append(Batches(t, at, action)), **extra)
    return model, seen[0].rows


@pytest.fixture(scope="module")
def whole(data, cache, tmp_path_factory):
    """A run from its first step to its last: directory, model, rows of each step."""
    output = tmp_path_factory.mktemp("whole") / "run"
    return output, *run(tiny(data), output, cache)


def test_a_run_leaves_a_model_a_card_and_a_log(whole):
    output, model, rows = whole
    before = tiny_model().second_stage_model.gates.detach()
    assert (model.second_stage_model.gates.detach() - before).abs().max() > 1e-4
    loaded = load(str(output / "model"))
    assert loaded.fingerprint == model.fingerprint
    card = (output / "model" / "README.md").read_text()
    assert "- mined.jsonl\n- plain.jsonl.gz\n" in card
    assert "| learning_rate | `0.001` |" in card
    log = log_of(output)
    assert list(log) == list(range(1, len(rows) + 1))
    assert {"loss", "accuracy", "learning_rate", "grad_norm", "context_null", "masked_false_negatives"} <= set(log[1])
    assert json.loads((output / "recipe.json").read_text())["batch_size"] == 8
    assert json.loads((output / "data.json").read_text())["rows"] == 84
    assert not list(output.rglob("training_args.bin"))


def test_epochs_have_other_batches(whole):
    _, _, rows = whole
    half = len(rows) // 2
    assert {frozenset(batch) for batch in rows[:half]}.isdisjoint({frozenset(batch) for batch in rows[half:]})


def killed(folder, output, cache, at):
    """Run in a child that kills itself."""
    context = multiprocessing.get_context("fork")
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    child = context.Process(target=run, args=(tiny(folder), output, cache), kwargs={"at": at, "action": kill})
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_batches_and_losses(whole, data, tmp_path, cache):
    """In the middle of an epoch, the first or the second."""
    directory, model, rows = whole
    for at in (5, 14):
        output = tmp_path / f"killed-{at}"
        killed(data, output, cache, at)
        start = int(last_checkpoint(output).name.rpartition("-")[2])
        assert start == at // 3 * 3
        resumed, rest = run(tiny(data), output, cache, resume=True)
        assert rest == rows[start:]
        assert_same_run(log_of(directory), log_of(output), model, resumed)


def assert_same_run(whole, again, model, resumed):
    assert list(again) == list(whole)
    for step, line in whole.items():
        for name in ("loss", "accuracy", "context_null", "learning_rate", "grad_norm"):
            assert again[step][name] == pytest.approx(line[name], rel=1e-6), (step, name)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=1e-7)


def stop(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted(data, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(tiny(data), output, cache, at=4, action=stop)
    return output


@pytest.fixture
def stopped(interrupted, tmp_path):
    """A run up to checkpoint-3, of a test's own."""
    return shutil.copytree(interrupted, tmp_path / "run")


def test_a_run_is_not_overwritten(folder, stopped, cache):
    with pytest.raises(StoreError, match="holds a run up to checkpoint-3: resume it"):
        train(tiny(folder), stopped, cache=cache)


def test_another_run_is_not_resumed(folder, stopped, cache, write_jsonl, example):
    with pytest.raises(MismatchError, match=r"another recipe: learning_rate was 0\.001, is 0\.5"):
        train(tiny(folder, learning_rate=0.5), stopped, cache=cache, resume=True)
    with pytest.raises(MismatchError, match=r"another architecture: .*context_size was 4, is 3"):
        train(tiny(folder, context_size=3), stopped, cache=cache, resume=True)
    write_jsonl(folder / "plain.jsonl.gz", [example(k, "a") for k in range(50)])
    with pytest.raises(MismatchError, match="the training data changed since"):
        train(tiny(folder), stopped, cache=cache, resume=True)


def test_another_number_of_processes_is_not_resumed(folder, stopped, cache):
    record = json.loads((stopped / "checkpoint-3" / "run.json").read_text())
    (stopped / "checkpoint-3" / "run.json").write_text(json.dumps({**record, "processes": 2}))
    with pytest.raises(MismatchError, match="by 2 processes, this run has 1"):
        train(tiny(folder), stopped, cache=cache, resume=True)
    (stopped / "checkpoint-3" / "run.json").write_text("[]")
    with pytest.raises(StoreError, match="is not a record of a run"):
        train(tiny(folder), stopped, cache=cache, resume=True)


def test_half_a_checkpoint_does_not_count(folder, stopped, cache):
    (stopped / "checkpoint-4").mkdir()
    (stopped / "checkpoint-4" / "model.safetensors").write_bytes(b"half")
    assert last_checkpoint(stopped).name == "checkpoint-3"


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(folder, tmp_path, cache):
    def spoil(trainer):
        class Spoil(TrainerCallback):
            def on_step_end(self, args, state, control, model=None, **kwargs):
                if state.global_step == 4:
                    with torch.no_grad():
                        model[0].model.second_stage_model.gates.fill_(float("nan"))

        trainer.add_callback(Spoil())

    with pytest.raises(
        TrainingError, match=r"the loss is nan at step 5, in the batch of rows \d+, .*(mined|plain), line"
    ):
        train(tiny(folder, null_probability=0.0), tmp_path / "run", cache=cache, on_ready=spoil)
    kept = load(str(tmp_path / "run" / "checkpoint-3"))
    assert torch.isfinite(kept.second_stage_model.gates).all()


def test_a_gradient_that_is_not_finite_changes_nothing(folder, tmp_path, cache):
    def spoil(trainer):
        parameter = trainer.model[0].model.second_stage_model.gates
        parameter.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(TrainingError, match="a gradient is not finite at step 1"):
        train(tiny(folder, null_probability=0.0), tmp_path / "run", cache=cache, on_ready=spoil)


def test_a_full_disk_keeps_the_earlier_checkpoint(folder, tmp_path, cache, monkeypatch):
    save, calls = torch.save, []

    def full(value, path, *rest, **extra):
        if "checkpoint-6" in str(path):
            calls.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(value, path, *rest, **extra)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match=r"checkpoint-6 could not be written .*Is the disk full"):
        train(tiny(folder), tmp_path / "run", cache=cache)
    assert calls
    assert not (tmp_path / "run" / "checkpoint-6").exists()
    assert last_checkpoint(tmp_path / "run").name == "checkpoint-3"


def test_evaluation_is_a_callable(folder, tmp_path, cache):
    steps = []

    def evaluate(model, step):
        steps.append((step, model.training))
        return {"ndcg@10": step / 100, "vectors": float(model.in_context(None).encode_query(["owl"]).sum())}

    train(tiny(folder, evaluate_steps=6, epochs=1.5), tmp_path / "run", cache=cache, evaluate=evaluate)
    assert [step for step, _ in steps] == [6, 12, 14]
    assert not any(training for _, training in steps)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["eval_ndcg@10"] for line in lines if "eval_ndcg@10" in line] == [0.06, 0.12, 0.14]
    assert "| ndcg@10 | 0.1400 |" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "biencoder", "null_probability": 0.0},
        {"clusters": False, "filter": "off"},
        {"filter": "fresh", "symmetric": True, "packing": "random"},
        {"first_stage": "frozen", "checkpointing": True, "accumulation": 2, "arguments": {"adam_beta2": 0.98}},
        {"chunk_tokens": None, "dtype": "bfloat16", "negatives": 0, "learning_rates": {"gates": 0.1}},
    ],
)
def test_every_switch_trains(folder, tmp_path, cache, changes):
    recipe = tiny(folder, max_steps=1, **changes)
    train(recipe, tmp_path / "run", cache=cache)
    assert np.isfinite([line["loss"] for line in log_of(tmp_path / "run").values()]).all()


def test_a_rate_for_parameters_that_are_not_there(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"no parameter of this model matches 'doors' \(only cached_form='gated'"):
        train(tiny(folder, learning_rates={"gates": 0.1, "doors": 0.1}), tmp_path / "run")
    assert not (tmp_path / "run" / "cache").exists()


def test_weights_of_a_data_config_are_used(folder, tmp_path, cache):
    config = [{"name": "plain.jsonl.gz", "weight": 1}, {"name": "mined.jsonl", "weight": 0}]
    (folder / "data_config.json").write_text(json.dumps(config))
    prepared = prepare(tiny(folder), cache)
    assert prepared.data.dataset_names == ["plain"]
    assert prepared.groups.weights == (1.0,)
    assert {"clusters", "negative", "beaten"} <= set(prepared.report)


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume(data, tmp_path, cache, train_in_two):
    recipe = tiny(data, share_negatives=True, max_steps=4, save_steps=2, batch_size=4)
    first, second = train_in_two(recipe, tmp_path / "run")
    assert first["weights"] == second["weights"]
    domain = prepare(recipe, cache, processes=2).groups.domain
    for left, right in zip(first["rows"], second["rows"], strict=True):
        assert len(set(domain[left + right])) == 1
        assert not set(left) & set(right)
    (tmp_path / "part").mkdir()
    os.rename(tmp_path / "run" / "checkpoint-2", tmp_path / "part" / "checkpoint-2")
    again, _ = train_in_two(recipe, tmp_path / "part", resume=True)
    assert again["rows"] == first["rows"][2:]
    found, expected = log_of(tmp_path / "part"), log_of(tmp_path / "run")
    assert list(found) == [3, 4]
    for step, line in found.items():
        for name in ("loss", "grad_norm", "learning_rate"):
            assert line[name] == pytest.approx(expected[step][name], rel=1e-6)


def test_recipes_are_whole_and_read_back():
    for name in recipe_names():
        recipe = load_recipe(name)
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert recipe.name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size=1 must be a whole number of at least 2"),
        ({"epochs": -1}, "epochs=-1"),
        ({"architecture": "transductive"}, "architecture='transductive' is unknown; use one of biencoder"),
        ({"null_probability": 2}, "null_probability=2 must lie in"),
        ({"data": "one"}, "data='one' must be a list"),
        ({"bacth_size": 1}, "unknown settings bacth_size"),
        ({"architecture": "biencoder"}, "has no context"),
        ({"statistics": {"centre": 0.4}}, "architecture='cached' has no statistics"),
        ({**PLAIN, "statistics": {"centre": 2}}, "centre=2 must lie between 0 and 1"),
        ({**PLAIN, "statistics": {"middle": 1}}, "recipe: statistics: unknown settings middle"),
        ({"saved_length": 0}, "saved_length=0 must be a whole number of at least 1"),
        ({"cluster_size": 0}, "cluster_size=0 must be a whole number of at least 1"),
        ({"cluster_dimensions": 0}, "cluster_dimensions=0 must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"small_domains": "drop"}, "small_domains='drop' is unknown; use one of error, skip, merge"),
        ({"loggers": ["all"]}, "loggers: all cannot be set; known are wandb, tensorboard, trackio"),
        ({"learning_rates": {"(": 0.1}}, r"learning_rates: '\(' is not a pattern of names"),
        ({"arguments": {"push_to_hub": True}}, "arguments: push_to_hub cannot be set; known are adam_beta1"),
        ({"arguments": {"adam_beta2": 1}}, "arguments: adam_beta2=1 must be a number of at least 0 and below 1"),
        (
            {"arguments": {"ddp_timeout": 0.5}},
            "arguments: ddp_timeout=0.5 must be a whole number of at least 1 and below",
        ),
    ],
)
def test_a_wrong_recipe_is_named(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(folder, **changes)


def test_unknown_recipes_bases_and_data_are_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="neither one of cde-doc-minilm, cde-minilm, minilm, multi-qa"):
        load_recipe("paper")
    (tmp_path / "own.json").write_text('{"learning_rate": 1}')
    with pytest.raises(ConfigError, match="base must be set"):
        load_recipe(tmp_path / "own.json")
    with pytest.raises(ConfigError, match="names no training data"):
        train(tiny(folder, data=[]), tmp_path / "run")
    with pytest.raises(ModelError, match="there is no directory"):
        train(tiny(folder, base="./nowhere"), tmp_path / "run")
    with pytest.raises(ConfigError, match="architecture='joint', but"):
        start_model(tiny(folder, architecture="joint"))


def test_the_small_recipe_builds_its_model(tmp_path):
    """From a backbone's own directory, with fewer layers than it has."""
    from transformers import AutoModel

    from cderetrieval.testing import BACKBONES, tiny_tokenizer

    settings = {**BACKBONES["nomic_bert"], "num_hidden_layers": 8}
    from transformers import AutoConfig

    backbone = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    backbone.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    recipe = load_recipe("paper-small").replace(base=str(tmp_path))
    model = start_model(recipe)
    assert model.config.attention == "joint"
    assert len(model.second_stage_model.backbone.layers) == len(model.first_stage_model.backbone.layers) == 6
    words = backbone.get_input_embeddings().weight
    torch.testing.assert_close(model.second_stage_model.backbone.get_input_embeddings().weight, words)
    plain = start_model(recipe.replace(architecture="biencoder"))
    assert plain.config.soft_prompt_tokens == 0


def test_a_bi_encoder_is_blind_to_its_context(folder, tmp_path, cache):
    recipe = tiny(folder, architecture="biencoder", null_probability=0.0, sequence_dropout=0.0, max_steps=2)
    model = train(recipe, tmp_path / "run", cache=cache)
    own = model.in_context(model.embed_context(["owls", "bees"]))
    np.testing.assert_array_equal(own.encode_query(["owl"]), model.in_context(None).encode_query(["owl"]))


def test_a_trained_bi_encoder_is_a_plain_model(folder, tmp_path, cache):
    recipe = tiny(folder, base=tiny_dense_directory(), **PLAIN, saved_length=40)
    model = train(recipe, tmp_path / "run", cache=cache)
    written = load(tmp_path / "run" / "model")
    assert isinstance(written, DenseEncoder)
    assert written.settings.max_length == 40
    texts = ["owls hunt at night " * 3, "bees"]
    expected = model.in_context(None).encode_document(texts)
    np.testing.assert_allclose(written.encode_document(texts), expected, atol=1e-6)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "A dense encoder" in card
    assert "| saved_length | `40` |" in card
    # The next phase starts from it, as a bi-encoder or as a contextual model.
    for changes in ({}, {"architecture": "cached", "first_stage": "tied"}):
        again = start_model(recipe.replace(**{**changes, "base": str(tmp_path / "run" / "model")}))
        np.testing.assert_allclose(again.in_context(None).encode_document(["bees"]), expected[1:], atol=1e-6)


def test_a_trained_bi_encoder_can_have_the_statistics_of_its_corpus(folder, tmp_path, cache):
    statistics = {"term_dimensions": 16, "term_weight": 0.5}
    train(tiny(folder, base=tiny_dense_directory(), **PLAIN, statistics=statistics), tmp_path / "run", cache=cache)
    written = load(tmp_path / "run" / "model")
    assert isinstance(written, StatisticsModel)
    assert written.config == StatisticsConfig(**statistics)
    retriever = Retriever(str(tmp_path / "run" / "model")).add(["owls hunt at night", "bees make honey"])
    assert retriever("honey", k=1)[0][0]["id"] == 1


def test_statistics_need_vectors_of_a_backbone_alone(folder, tmp_path):
    changes = {**PLAIN, "base": tiny_dense_directory(), "model": {"head": "mlp"}}
    recipe = tiny(folder, **changes, statistics={"centre": 0.4})
    with pytest.raises(ConfigError, match="set head='none'"):
        train(recipe, tmp_path / "run")


def test_statistics_of_inner_products_are_refused_before_training(folder, tmp_path):
    SentenceTransformer(tiny_dense_directory(), similarity_fn_name="dot").save_pretrained(str(tmp_path / "dot"))
    changes = {"architecture": "dense", "filter": "off", "model": {}, "base": str(tmp_path / "dot")}
    with pytest.raises(ConfigError, match="vectors of length 1"):
        train(tiny(folder, **{**PLAIN, **changes}, statistics={"centre": 0.4}), tmp_path / "run")


def test_the_default_model_is_what_its_recipe_saves():
    recipe = load_recipe("cde-minilm")
    assert recipe.statistics == STATISTICS
    if (directory := installed_minilm()) is not None:
        assert recipe.saved_length == DenseEncoder(str(directory)).settings.max_length


def test_v2_finds_the_end_of_an_instruction():
    from cderetrieval.testing import BACKBONES, tiny_tokenizer

    config = model_config(load_recipe("paper-large-v2"), dict(BACKBONES["modernbert"]), tiny_tokenizer())
    assert config.instruction_end_id == tiny_tokenizer().convert_tokens_to_ids(":")
