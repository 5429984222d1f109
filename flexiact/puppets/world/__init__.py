"""The puppet world: bodies, actions, scenes, pictures, captions and true answers."""
