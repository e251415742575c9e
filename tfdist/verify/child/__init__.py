"""The process that runs the user's script and records what it does; `python -m tfdist.verify.child SPEC`.

seeds           default seeds, before the script
substitution    the script's strategies become one device, or the one that spans the workers
fits            a recorder in every `fit` and `train_on_batch`
recorder        writes the recording, a step at a time
rows            a number for each row that a replica trains on
random_layers   made inert, since their numbers differ from replica to replica
call_sites      where the script calls what is known to go wrong in a replica
facts           what is told of models, their layers and how they are compiled
probe           the first step on a whole batch beside the same step on its slices
"""

from __future__ import annotations
