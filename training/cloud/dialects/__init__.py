"""Vendors' dialects as pure functions: a request and a model in, a response out, no sockets."""
