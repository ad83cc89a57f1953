"""Learns feature codecs: what a device sends to a classifier's tail instead of a picture."""
