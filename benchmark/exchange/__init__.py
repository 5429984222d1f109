"""Exchange with other tools: scores in and out, and the card that says who made and who measured the videos."""
