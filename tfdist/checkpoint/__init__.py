"""Checkpoints that appear whole or not at all, and hold all that decides how training goes on.

Glossary:
    checkpoint: a folder `epoch-E-step-S`; training goes on in epoch E of `fit`, behind S batches of it.
    whole: its manifest is there, and every file has the size and SHA-256 that the manifest says.
    boundary: between two train steps, or two epochs; where all that training depends on is in variables and numbers.

Order of events, at a boundary, on every worker:

    each worker's own state (metrics, sums of gradients, random numbers)  -> the chief     state.py
    the chief copies weights and optimizer                                                _compat/keras_weight_files.py
    training goes on, while a thread of the chief's
        writes the files into `.writing-...`, flushed to disk, the manifest last           files.py, background.py
        renames the folder into place, and removes what is older than the newest `keep`

Where variables are in parts on a mesh, every process writes its own in its thread, and the chief's thread waits for all
before the manifest: shards.py.

    killed before the rename         the folder is removed at the next start; those before it are as they were
    killed behind it                 it is whole
    disk full, folder read-only      CheckpointError at the next boundary, or a warning; those before it as they were
    a file changed or cut off        the checkpoint is left out with a warning, and the one before it taken
"""

from tfdist.checkpoint.weights import load_weights

__all__ = ["load_weights"]
