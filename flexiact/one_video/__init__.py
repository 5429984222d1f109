"""One target image and one reference video to one video: the work behind `python -m flexiact`."""
