"""Pretrained networks as torch modules that take pictures as they are: uint8 (N, S, S, 3), RGB."""
