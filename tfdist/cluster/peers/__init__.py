"""Connections between the workers of a job, beside TensorFlow's: who is gone, who is late, and what it does.

Upstream notices a dead worker by its missing heartbeats, after ten seconds, and a worker that is late not at all. Here
every two workers hold a TCP connection. A kernel closes those of a process the moment that it ends, however it ends, so
the others know at once, whatever the time-out of heartbeats.

Order of events
    1. A mesh listens on the host of its task's own address, at any free port.
    2. Addresses and a token are exchanged elsewhere (the cluster's key-value store); `connect` begins.
    3. A worker calls those of lower index and says who it is, with the token; who has another one is hung up on.
    4. Each says every second how far it is (`Beat`), which costs no step anything.
    5. A worker that ends says good-bye with its reason; one that is killed says nothing.

    | what a worker sees of another            | what it takes it for                                      |
    |------------------------------------------|-----------------------------------------------------------|
    | good-bye with an error, connection closed| it failed; the error is passed on                         |
    | good-bye without, connection closed      | it left; those still at work get LEAVING_SECONDS to end   |
    | an epoch that is over, here it goes on   | it makes fewer steps: an error, before both wait for ever |
    | connection closed or reset               | its process was killed, or its machine restarted          |
    | nothing for some seconds                 | nothing yet: it may be stopped, cut off, or hold Python's |
    |                                          | lock; TensorFlow's heartbeats decide, this one names it   |
    | can't be reached when the job begins     | a warning; TensorFlow's heartbeats have to do             |

Nothing here imports TensorFlow.
"""

from tfdist.cluster.peers.beats import Beat, StepClock
from tfdist.cluster.peers.mesh import Loss, PeerMesh

__all__ = ["Beat", "Loss", "PeerMesh", "StepClock"]
