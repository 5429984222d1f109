"""One CogVideoX image-to-video model: which there are, loading, coding, attention, adapters' places and probes."""
