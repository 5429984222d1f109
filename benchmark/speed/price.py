"""Settings that are faster and may cost quality: fewer sampler steps, and compiled blocks, each with its price.

They are always measured on the puppets backbone, since a price needs a known truth. The task is that of the bound
`in-words`: the backbone alone, told the whole action in words. So no fit hides the effect of the sampler.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from baselines.i2v import ImageToVideo
from benchmark.bounds.bounds import BOUNDS
from benchmark.speed.comparison import Comparison, device_clock, type_name
from benchmark.speed.timing import Variant
from benchmark.stages.execute import format_of
from benchmark.store.errors import error_text
from benchmark.suites.case import Stages
from benchmark.suites.puppets import PuppetCase, load_suite
from benchmark.tune import trials as tune
from benchmark.workers.load import load_judges
from flexiact.backbone.backbone import Backbone
from flexiact.task import Request
from reports.wording import count

if TYPE_CHECKING:
    from metrics.perception import Perception

SHARES = 1, 2, 4
"""Shares of the backbone's steps: all, a half, a quarter."""


def price_on_suite(backbone: Backbone) -> Comparison:
    """`price` on the first case of each reference in the suite that methods are tuned on."""
    suite = load_suite(tune.SUITE)
    return price(backbone, suite.first_cases(), load_judges(None, backbone.device))


def price(
    backbone: Backbone, cases: Mapping[str, PuppetCase], perception: "Perception", compiler: str = "inductor"
) -> Comparison:
    """Compare the time of one video, and the mean scores of the videos of all cases, told in words.

    A compiler that does not work here is left out, with the reason.
    """
    stages = told_in_words(backbone, cases)
    guidance = max(backbone.guidance_scale, BOUNDS["in-words"].config()["least_guidance_scale"])
    native = backbone.num_inference_steps
    methods = {}
    for steps in dict.fromkeys(max(1, native // share) for share in SHARES):
        methods[count(steps, "step")] = ImageToVideo.from_preset(
            backbone, num_inference_steps=steps, guidance_scale=guidance
        )
    first = next(iter(cases))
    request = Request(stages[first].target.copy(), stages.cases[first].prompt, 0)
    figures: dict[str, dict[str, float]] = {}
    left_out = {}
    clock = device_clock(backbone.device)
    quick = f"{count(native, 'step')}, compiled"
    try:
        start = clock()
        method = ImageToVideo.from_preset(compiled(backbone, compiler), guidance_scale=guidance)
        method.transfer({}, request)
        figures[quick] = {"first_video_s": clock() - start}
        methods[quick] = method
    except Exception as error:  # compilers fail with many types of error, and all mean the same here
        left_out[quick] = without_paths(error_text(error))
    for name, method in methods.items():
        figures[name] = tune.measure(stages, perception, method, {}) | figures.get(name, {})
    return Comparison(
        title="Fewer steps and compiled blocks, and their price",
        setting=(
            f"one video told in words on backbone {backbone.name}, guidance {guidance:g}, {type_name(backbone.dtype)}; "
            f"scores are means over {len(cases)} cases, one seed"
        ),
        variants={name: Variant(partial(method.transfer, {}, request)) for name, method in methods.items()},
        rivals=(count(native, "step"),),
        figures=figures,
        left_out=left_out,
    )


def told_in_words(backbone: Backbone, cases: Mapping[str, PuppetCase]) -> Stages:
    """Contents of cases whose prompts are the full captions of their answers."""
    form = format_of(backbone)
    return Stages({i: replace(case, prompt=case.show(form).in_words) for i, case in cases.items()}, form)


def compiled(backbone: Backbone, compiler: str) -> Backbone:
    """Backbone with a copy of its transformer; torch.compile compiles each block of the copy at its first call."""
    transformer = deepcopy(backbone.transformer)
    for block in transformer.transformer_blocks:
        block.compile(backend=compiler)
    return replace(backbone, transformer=transformer)


def without_paths(text: str) -> str:
    """Text of a message in which each path is shortened to its last part."""
    return re.sub(r"(?<![\w.])(?:/[\w.+~-]+)+", lambda found: found[0].rpartition("/")[2], text)
