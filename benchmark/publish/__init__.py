"""What is published, what it depends on, and the command that makes it."""
