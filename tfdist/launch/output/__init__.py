"""From the bytes that tasks print to what a person sees: lines, noise, tracebacks, console."""
