"""Processes of the contenders: each is run as a module, by the Python that has its library, and serves requests."""
