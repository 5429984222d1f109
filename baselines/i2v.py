"""The backbone with the prompt and nothing else: the baseline that action transfer has to beat."""

from flexiact.arguments import check_action
from flexiact.backbone.backbone import Backbone
from flexiact.configured import Config, ConfiguredMethod, NoSettings, SamplerSettings
from flexiact.task import Action, Request, Video

OWN = Config(NoSettings(), SamplerSettings())
PRESETS = {"puppets": OWN.changed(guidance_scale=3.0)}  # found by `benchmark.tune`


class ImageToVideo(ConfiguredMethod[NoSettings, SamplerSettings]):
    """Plain image-to-video generation; the reference is never read."""

    method_id = "ImageToVideo"
    version = 1
    uses_reference = False
    presets = PRESETS

    @classmethod
    def preset(cls, backbone: Backbone) -> Config[NoSettings, SamplerSettings]:
        """Tuned settings for a backbone if there are any, otherwise its own sampler."""
        return PRESETS.get(backbone.name, OWN)

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Learn nothing."""
        return {}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video that the prompt describes."""
        check_action(action, {})
        return self.sample(request)
