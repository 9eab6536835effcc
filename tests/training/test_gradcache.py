"""The gradient cache against one whole graph and against the reference's gradients."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cderetrieval.testing import BACKBONES, tiny_model
from cderetrieval.training.gradcache import Caching, contextual_step

TEXTS = {
    "query": ["owl", "a bee in the hive", "what is a heath", "pines", "kelp and jade", "x"],
    "document": ["owls hoot at night", "bees", "heather grows there on poor soil", "a pine", "green", "the letter x"],
    "negative": ["crows", "wasps sting often", "moor", "firs grow"],
    "context": ["one of many documents", "another", "a third, longer than the others", "four", "five"],
}
FORMS = {
    "cached gated": {"attention": "cached", "cached_form": "gated"},
    "cached shared": {"attention": "cached", "cached_form": "shared"},
    "joint": {"attention": "joint"},
    "joint sequential": {"attention": "joint", "context_positions": "sequential"},
    "tied": {"attention": "cached", "first_stage": "tied"},
    "parts": {"attention": "joint", "tokens_per_document": 2},
}


def tokens(model, name):
    encoded = model.tokenizer(TEXTS[name], padding=True, return_tensors="pt")
    return {key: encoded[key] for key in ("input_ids", "attention_mask")}


def contrast(vectors):
    queries, *candidates = (torch.nn.functional.normalize(matrix, dim=1) for matrix in vectors)
    scores = queries @ torch.cat(candidates).T * 20
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(queries)))


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def step(model, caching, *, factor=1.0, seed=0, context=True, **extra):
    columns = [tokens(model, name) for name in ("query", "document", "negative")]
    torch.manual_seed(seed)
    shared = tokens(model, "context") if context else None
    loss = contextual_step(model, columns, shared, contrast, caching, **extra)
    (loss * factor).backward()
    return float(loss.detach()), gradients(model)


def assert_same(actual, expected, tolerance=1e-5):
    assert actual[0] == pytest.approx(expected[0], rel=1e-6)
    actual, expected = actual[1], expected[1]
    nonzero = {name for name, gradient in expected.items() if gradient.abs().max() > 0}
    assert nonzero <= set(actual)
    # Some gradients, those of key biases for one, are 0 but for rounding.
    least = 1e-2 * max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in actual.items():
        other = expected.get(name, torch.zeros_like(gradient))
        assert (gradient - other).norm() <= tolerance * max(float(other.norm()), least), name


def whole_graph(model, context=True, null=False):
    """Without any code of the cache."""
    embeddings = model.first_stage_model(**tokens(model, "context")) if context else None
    vectors = [
        model.second_stage_model(**tokens(model, name), dataset_embeddings=embeddings, null_dataset_embedding=null)
        for name in ("query", "document", "negative")
    ]
    loss = contrast(vectors)
    loss.backward()
    return float(loss.detach()), gradients(model)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("chunk", "first"), [(None, None), (12, 9), (30, 1), (10_000, 20)])
def test_gradients_equal_one_whole_graph(form, chunk, first):
    model = tiny_model(max_length=32, **{"context_positions": "separate", **FORMS[form]}).double().train()
    if form == "parts" and chunk is None:
        pytest.skip("documents of several vectors run alone, whatever the chunk")
    expected = whole_graph(model) if form != "parts" else step(model, Caching(None, None, "float32"))
    assert_same(step(model, Caching(chunk, first, "float32")), expected)


@pytest.mark.parametrize("family", BACKBONES)
def test_gradients_in_float32_equal_to_1e_5(family):
    model = tiny_model(family).train()
    assert_same(step(model, Caching(20, 12, "float32")), whole_graph(model))


@pytest.mark.parametrize("attention", ["cached", "joint"])
@pytest.mark.parametrize("null", [False, True])
def test_without_context_documents(attention, null):
    model = tiny_model(attention=attention).double().train()
    caching = Caching(16, None, "float32")
    assert_same(step(model, caching, context=False, null=null), whole_graph(model, context=False, null=null))


@pytest.mark.parametrize("attention", ["cached", "joint"])
def test_random_states_are_replayed(attention):
    """With dropout and sequence dropout, the same chunks in one graph draw the same numbers."""
    from cderetrieval.training import gradcache

    backbone = {**BACKBONES["bert"], "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
    model = tiny_model(attention=attention, backbone=backbone, disable_dropout=False, sequence_dropout=0.4)
    model = model.double().train()
    caching = Caching(14, 9, "float32")
    cached = step(model, caching, seed=3)

    torch.manual_seed(3)
    shared = gradcache.StepContext(model, tokens(model, "context"), False, caching)
    shared.prepare(graph=True)
    columns = [tokens(model, name) for name in ("query", "document", "negative")]
    loss = contrast([runner.forward(graph=True) for runner in shared.runners(columns)])
    loss.backward()
    assert_same(cached, (float(loss.detach()), gradients(model)))
    assert step(model, caching, seed=4)[0] != pytest.approx(cached[0], rel=1e-4)


@pytest.mark.parametrize(
    ("chunk", "first", "second_stage", "first_stage"),
    [(10_000, None, 3, 1), (10_000, 20, 3, 8), (400, 200, 3, 2), (200, 200, 6, 2)],
    ids=["all in one chunk", "the first stage has chunks of its own", "texts alone fit", "each column fits alone"],
)
def test_what_fits_in_one_chunk_is_computed_once(chunk, first, second_stage, first_stage):
    model = tiny_model().double().train()
    expected, counts = step(model, Caching(None, None, "float32")), [0, 0]

    def count(stage):
        def called(*_):
            counts[stage] += 1

        return called

    stages = model.first_stage_model, model.second_stage_model
    hooks = [module.register_forward_hook(count(stage)) for stage, module in enumerate(stages)]
    found = step(model, Caching(chunk, first, "float32"))
    for hook in hooks:
        hook.remove()
    assert_same(found, expected)
    assert counts == [first_stage, second_stage]


def test_a_frozen_first_stage_gets_no_gradient():
    model = tiny_model().double().train()
    for chunk in (None, 12):
        _, found = step(model, Caching(chunk, None, "float32", train_first=False))
        assert not any(name.startswith("first_stage_model.") for name in found)
    assert any(name.startswith("second_stage_model.") for name in found)


def test_the_factor_of_the_backward_pass_reaches_every_gradient():
    model = tiny_model(attention="joint").double().train()
    once, half = step(model, Caching(12, 9, "float32")), step(model, Caching(12, 9, "float32"), factor=0.5)
    for name, gradient in once[1].items():
        torch.testing.assert_close(half[1][name], gradient / 2, rtol=1e-9, atol=1e-12)


def test_no_gradient_asked_for_gives_the_loss_alone():
    model = tiny_model().double().train()
    with torch.no_grad():
        loss = contextual_step(
            model, [tokens(model, "query"), tokens(model, "document")], tokens(model, "context"), contrast, Caching(12)
        )
    assert not loss.requires_grad


def test_checkpointing_inside_the_backbone_changes_nothing():
    model = tiny_model().double().train()
    plain = step(model, Caching(12, 9, "float32"))
    for stage in (model.first_stage_model, model.second_stage_model):
        stage.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(step(model, Caching(12, 9, "float32")), plain)


class Saved:
    """A tensor that a graph keeps for its backward pass; counts the bytes that live at once."""

    live = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Saved.live += tensor.nbytes
        Saved.peak = max(Saved.peak, Saved.live)

    def __del__(self):
        Saved.live -= self.tensor.nbytes


def activations(model, copies, caching):
    """Most bytes that graphs hold during a step on so many copies of the texts."""

    def repeated(name):
        return {key: value.repeat(copies, 1) for key, value in tokens(model, name).items()}

    Saved.live = Saved.peak = 0
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    keep = lambda tensor: tensor if tensor.data_ptr() in weights else Saved(tensor)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor if isinstance(kept, Saved) else kept):
        columns = [repeated("query"), repeated("document")]
        contextual_step(model, columns, tokens(model, "context"), contrast, caching).backward()
    model.zero_grad()
    return Saved.peak


@pytest.mark.parametrize("attention", ["cached", "joint"])
def test_memory_does_not_grow_with_the_batch(attention):
    model = tiny_model(attention=attention).train()
    small, large = (activations(model, copies, Caching(128, 128, "float32")) for copies in (8, 32))
    assert large < 1.1 * small
    whole = activations(model, 32, Caching(None, None, "float32"))
    assert large < whole / 8


def golden():
    """The loader of the parity tests, so that the map of names exists once."""
    path = Path(__file__).parent.parent / "models" / "test_golden.py"
    spec = importlib.util.spec_from_file_location("golden_of_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("case", "chunk"), list(itertools.product(["v1_train", "v2_bert", "v2_modernbert"], [1, 40, None]))
)
def test_gradients_equal_the_reference(case, chunk):
    reference = golden()
    model, data = reference.load_case(case)
    duplicates = data["out.duplicate_labels"].bool()

    def loss_function(vectors):
        queries, documents = (torch.nn.functional.normalize(matrix, dim=1) for matrix in vectors)
        scores = (queries @ documents.T * model.config.logit_scale).masked_fill(duplicates, -1e10)
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))

    columns = [reference.inputs(data, side) for side in ("query", "doc")]
    context = reference.inputs(data, "dataset")
    loss = contextual_step(model, columns, context, loss_function, Caching(chunk, None, "float32"))
    loss.backward()
    reference.assert_close(loss.detach().reshape(1), data["out.loss"])
    reference.assert_gradients(model, load_file(reference.GOLDEN / case / "grads.safetensors"))
