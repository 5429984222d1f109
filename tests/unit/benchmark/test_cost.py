"""The runs of the transformer that costs are computed from are those that methods really make."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from benchmark import cost
from benchmark.cost import ROWS, Work
from flexiact.task import Request
from tests.support.tiny_methods import CAPTION, PROMPT, REFERENCES, TARGET, patch_tiny


def counted(backbone, work) -> Counter:
    """Runs of the whole transformer, by gradients and by clips and stills; a run through half the blocks is a half."""
    runs: Counter = Counter()
    blocks = backbone.transformer.transformer_blocks
    frame = backbone.latent_shape[2] * backbone.latent_shape[3] // 4

    def count(block, arguments, named) -> None:
        states = named.get("hidden_states", arguments[0] if arguments else None)
        kind = "learned" if torch.is_grad_enabled() else "plain"
        kind += "_stills" if states.shape[1] == frame else ""
        runs[kind] += len(states) / len(blocks)

    hooks = [block.register_forward_pre_hook(count, with_kwargs=True) for block in blocks]
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return runs


def expected(work: Work) -> Counter:
    learned = work.learned + work.guided * work.depth
    found = {"plain": work.plain, "learned": learned, "learned_stills": work.learned_stills}
    return Counter({kind: number for kind, number in found.items() if number})


@pytest.mark.parametrize("name", ROWS)
def test_runs_are_those_that_the_method_makes(name: str, backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_tiny(monkeypatch)
    method = cost._built(ROWS[name][0], backbone, **ROWS[name][1])
    config = method.config
    if hasattr(config.transfer, "checkpointing"):  # which runs blocks twice
        method = type(method)(backbone, config.changed(checkpointing=False))
    fit, transfer = cost.work_of(method, backbone)
    action = {}
    assert counted(backbone, lambda: action.update(method.fit(REFERENCES[0], CAPTION, seed=0))) == expected(fit)
    assert counted(backbone, lambda: method.transfer(action, Request(TARGET, PROMPT, 0))) == expected(transfer)


def test_operations_are_those_of_matrix_products(backbone) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config = backbone.transformer.config
    width, tokens = config.num_attention_heads * config.attention_head_dim, cost._tokens(backbone, 3)
    block = backbone.transformer.transformer_blocks[0]
    video, text = torch.zeros(1, 18, width), torch.zeros(1, tokens - 18, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        block(video, text, torch.zeros(1, config.time_embed_dim))
    norms = 2 * 2 * config.time_embed_dim * 6 * width  # of the time's embedding, once a clip, not once a token
    assert cost.operations(Work(plain=1), backbone) == config.num_layers * (counter.get_total_flops() - norms)


def test_gradients_cost_three_and_four_times(backbone) -> None:
    plain, learned = (cost.operations(Work(**{kind: 1}), backbone) for kind in ("plain", "learned"))
    assert 3 * plain < learned < 4 * plain
    assert cost.operations(Work(guided=1, depth=0.5), backbone) == learned / 2
    assert cost.memory_gib(Work(), Work(plain=1), backbone, 2.0, 3.0) == 2.0
    assert cost.memory_gib(Work(learned=1), Work(plain=1), backbone, 2.0, 3.0) == 3.0
    assert cost.memory_gib(Work(), Work(guided=1), replace(backbone, dtype=torch.float64), 2.0, 3.0) > 2.0
