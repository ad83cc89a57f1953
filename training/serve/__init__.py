"""A fleet's retraining service: jobs from many devices, agents back."""
