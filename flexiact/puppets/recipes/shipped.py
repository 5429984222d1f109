"""The shipped backbone for recipes that build on it."""

from functools import cache

from flexiact.backbone.backbone import Backbone, load_backbone


@cache
def shipped_backbone(device: str) -> Backbone:
    """The puppets' backbone on a device, loaded once a process: a recipe of one process asks for it twice."""
    return load_backbone("puppets", device)
