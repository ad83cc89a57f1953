"""Learners: the paper's DQN, and the default bandit with its certificate."""
