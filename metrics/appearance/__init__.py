"""Metrics of looks: the subject kept, the prompt met, nothing taken over from the reference."""
