"""Videos, images and frame folders: files in and out."""
