"""Make one video from one target image and one reference video: the work behind `python -m flexiact`."""
