"""Pose estimators and skeletons."""
