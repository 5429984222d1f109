"""One CogVideoX image-to-video model: known models, loading, coding, attention, adapters and probes."""
