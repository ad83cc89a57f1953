"""Learns an agent's parameters: labels, environment, learners, calibration, evaluation."""
