"""A small grammar of captions at three levels, and the closed vocabulary of the tokenizer.

subject   striped red blue bird, left, large, profile         who and where only
coarse    ... moving forelimbs, trunk                         and which parts move
full      ... trunk bows pulse strongly none half full half none           and how every channel moves

The level `full` describes the course of a movement twice: by a word, and by its extent at the start, at a quarter, in
the middle, at three quarters and at the end. Two paraphrases leave out one or the other and list the parts in another
order.
"""

from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from flexiact.puppets.world.actions import SHAPES, Motion, PuppetAction
from flexiact.puppets.world.rigs import LIMBS, RIGS
from flexiact.puppets.world.scene import COLOURS, PATTERNS, Scene

UNKNOWN = "<unk>"
"""Token of every word outside the vocabulary."""

LEVELS: tuple[str, ...] = ("subject", "coarse", "full")
# Verb of a positive and of a negative amplitude, by kind of channel.
_VERBS: dict[str, tuple[str, str]] = {
    "trunk_pitch": ("bows", "arches"), "trunk_yaw": ("twists", "untwists"), "trunk_roll": ("leans", "counterleans"),
    "hop": ("hops", "sinks"), "shift": ("advances", "retreats"), "swing": ("swings", "backswings"),
    "spread": ("spreads", "closes"), "flex": ("bends", "overextends"), "head_pitch": ("nods", "lifts"),
    "head_yaw": ("looks", "counterlooks"), "tail_yaw": ("wags", "counterwags"), "tail_pitch": ("raises", "droops"),
}  # fmt: skip
_AMOUNTS = ("barely", "slightly", "somewhat", "clearly", "strongly", "fully")
_AMOUNT_STEP, _LEAST_AMOUNT = 0.15, 0.6
# Extent of a movement in halves of its amplitude; negative is the opposite way.
_COURSE = {-2: "opposite", -1: "half-opposite", 0: "none", 1: "half", 2: "full"}
_COURSE_FRAMES = 5
_ALTERNATELY = "alternately"  # the left limb as described, the right one the opposite way
PARAPHRASES = 3
"""Number of wordings of the level `full`; the first is the canonical one."""
_PLACES, _SIZES = ("left", "centre", "right"), ("small", "middling", "large")
_VIEWS = ("frontal", "oblique", "profile")
_PARTS = {limb: "-".join(reversed(limb.split("_"))) + "limb" for limb in LIMBS}  # fore_left -> left-forelimb
_PAIRS = {"fore": "forelimbs", "hind": "hindlimbs"}


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, in a fixed order."""
    words: list[str] = [*PATTERNS, *COLOURS, *(r.noun for r in RIGS.values()), *_PLACES, *_SIZES, *_VIEWS]
    words += ["moving", "trunk", "body", "head", "tail", *_PARTS.values(), *_PAIRS.values()]
    words += [verb for pair in _VERBS.values() for verb in pair] + list(SHAPES) + list(_AMOUNTS)
    words += [*_COURSE.values(), _ALTERNATELY]
    return tuple(dict.fromkeys(words))


def _third(value: float, low: float, high: float) -> int:
    return 0 if value < low else 1 if value < high else 2


def _subject(scene: Scene) -> str:
    skin, camera = scene.skin, scene.camera
    place = _PLACES[_third(camera.x, -0.03, 0.03)]
    size, view = _SIZES[_third(camera.scale, 0.73, 0.81)], _VIEWS[_third(camera.yaw_deg, 40, 65)]
    look = f"{skin.pattern} {skin.primary} {skin.secondary} {RIGS[scene.rig].noun}"
    return f"{look}, {place}, {size}, {view}"


def _part(channel: str) -> str:
    for limb, name in _PARTS.items():
        if channel.startswith(limb):
            return name
    return {"hop": "body", "shift": "body"}.get(channel, channel.split("_")[0])


def _course(shape: str) -> str:
    """Words for a shape's extent at the start, at each quarter and at the end."""
    values = SHAPES[shape](torch.linspace(0, 1, _COURSE_FRAMES))
    return " ".join(_COURSE[round(float(v) * 2)] for v in values)


def _phrase(motion: Motion, part: str, paraphrase: int) -> str:
    kind = motion.channel.rsplit("_", 1)[-1] if motion.channel.startswith(LIMBS) else motion.channel
    verb = _VERBS[kind][0 if motion.amplitude >= 0 else 1]
    amount = int((abs(motion.amplitude) - _LEAST_AMOUNT) // _AMOUNT_STEP) + 1
    words = [part, verb, motion.shape, _AMOUNTS[min(max(amount, 0), len(_AMOUNTS) - 1)], _course(motion.shape)]
    left_out = {0: None, 1: _course(motion.shape), 2: motion.shape}[paraphrase]
    return " ".join(word for word in words if word != left_out)


def _grouped(action: PuppetAction) -> list[tuple[Motion, str]]:
    """Motions with the part that performs them; equal or opposite movements of left and right limb become one."""
    groups: list[tuple[Motion, str]] = []
    paired = set()
    for motion in action:
        channel = motion.channel.replace("_left_", "_right_")
        alike, opposite = (Motion(channel, motion.shape, sign * motion.amplitude) for sign in (1, -1))
        if channel != motion.channel and (alike in action or opposite in action):
            pair = _PAIRS[motion.channel.split("_")[0]]
            groups.append((motion, pair if alike in action else f"{pair} {_ALTERNATELY}"))
            paired.add(alike if alike in action else opposite)
        elif motion not in paired:
            groups.append((motion, _part(motion.channel)))
    return groups


def caption(scene: Scene, action: PuppetAction, level: str, paraphrase: int = 0) -> str:
    """Describe a clip.

    Args:
        scene: Scene with figure, layout and viewpoint.
        action: Action to describe; channels that the body lacks are not mentioned.
        level: "subject", "coarse" or "full".
        paraphrase: Number of a wording of the level "full", 0 to `PARAPHRASES` - 1; other levels have one.

    Raises:
        ValueError: If the level or the paraphrase is unknown.
    """
    if level not in LEVELS:
        raise ValueError(f"level: unknown '{level}', choose from {', '.join(LEVELS)}")
    if not 0 <= paraphrase < PARAPHRASES:
        raise ValueError(f"paraphrase: expected 0 to {PARAPHRASES - 1}, got {paraphrase}")
    subject = _subject(scene)
    groups = _grouped(tuple(m for m in action if m.channel in RIGS[scene.rig].channels))
    if level == "subject" or not groups:
        return subject
    if level == "coarse":
        return f"{subject}, moving {', '.join(dict.fromkeys(part.split()[0] for _, part in groups))}"
    groups = groups if paraphrase == 0 else groups[::-1]
    return ", ".join([subject, *(_phrase(motion, part, paraphrase) for motion, part in groups)])


def wordings(scene: Scene, action: PuppetAction) -> list[str]:
    """All captions of a clip: the levels "subject" and "coarse", then every paraphrase of "full"."""
    full = [caption(scene, action, "full", paraphrase) for paraphrase in range(PARAPHRASES)]
    return [caption(scene, action, "subject"), caption(scene, action, "coarse"), *full]


def word_tokenizer(special: Sequence[str], template: str, separators: str) -> Tokenizer:
    """Tokenizer with one token per lower-case word of the closed vocabulary; other words become `UNKNOWN`.

    Args:
        special: Special tokens, which have the first ids; `UNKNOWN` is among them.
        template: Template of a text: `$A` for its words, and special tokens around it, separated by spaces.
        separators: Regular expression of the separators between words, which are dropped.
    """
    ids = {word: i for i, word in enumerate((*special, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(separators), "removed")
    around = [(token, ids[token]) for token in template.split() if token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return tokenizer
