"""Waits for what never comes."""

import threading

print("waiting", flush=True)
threading.Event().wait()
