"""The puppet backbone: its networks, the lessons before its training, its trunk and branches."""
