"""The backbone and the prompt, nothing else: what action transfer has to beat."""

from flexiact.arguments import check_action
from flexiact.backbone.backbone import Backbone
from flexiact.configured import Config, ConfiguredMethod, NoSettings, SamplerSettings
from flexiact.task import Action, Request, Video

OWN = Config(NoSettings(), SamplerSettings())
PRESETS = {"puppets": OWN.changed(guidance_scale=1.0)}  # where tuning found better than the backbone's own


class ImageToVideo(ConfiguredMethod[NoSettings, SamplerSettings]):
    """Plain image-to-video generation; it never looks at the reference."""

    method_id = "ImageToVideo"
    version = 1
    uses_reference = False
    presets = PRESETS

    @classmethod
    def preset(cls, backbone: Backbone) -> Config[NoSettings, SamplerSettings]:
        """What tuning found for a backbone, else its own sampler."""
        return PRESETS.get(backbone.name, OWN)

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Learn nothing."""
        return {}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video that the prompt describes.

        Raises:
            ValueError: naming the field, for an action that is not empty or a target of another size.
        """
        check_action(action, {})
        return self.sample(request)
