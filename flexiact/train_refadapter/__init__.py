"""RefAdapter on your own videos: `accelerate launch -m flexiact.train_refadapter`."""
