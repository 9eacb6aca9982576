"""Feedback: what the learner finds hard in the training data, as plans that the refill follows."""
