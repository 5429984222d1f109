"""Networks that judge puppet videos or drive methods: pose estimators, and an image and text encoder."""
