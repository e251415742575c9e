"""Lends its MPI rank to the launcher: `python mpi_holder.py SOCKET`, started by mpiexec; see `tfdist.launch.mpi`.

Needs nothing but the standard library.
"""

import json
import os
import socket
import sys

# MPICH and its kin talk to mpiexec through a file that processes inherit, others by addresses in the environment.
_INHERITED = "PMI_FD"


def main() -> None:
    """Send what makes a rank of a process; end when the launcher hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as launcher:
        launcher.connect(sys.argv[1])
        number = os.environ.get(_INHERITED)
        # A byte comes with the files.
        socket.send_fds(launcher, [b"."], [] if number is None else [int(number)])
        launcher.sendall(json.dumps(dict(os.environ)).encode() + b"\n")
        launcher.recv(1)


if __name__ == "__main__":
    main()
