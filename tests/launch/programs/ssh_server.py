"""An SSH server that runs commands, for one user with one key.

`python -m tests.launch.programs.ssh_server ADDRESS PORT FOLDER`: FOLDER has the keys `host` and `user`, as asyncssh
writes them; the file `ready` appears there when the server listens.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import asyncssh


async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """What a login shell does with the command: an environment of its own, and no terminal."""
    command = process.command or "exit 1"
    env = {"PATH": "/usr/bin:/bin", "HOME": "/"}
    shell = await asyncio.create_subprocess_shell(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env, cwd="/")
    await process.redirect(stdin=shell.stdin, stdout=shell.stdout, stderr=shell.stderr)
    # Until all that it wrote has gone out: an exit before that is lost.
    await process.stdout.drain()
    await process.stderr.drain()
    process.exit(await shell.wait())


async def serve(address: str, port: int, folder: Path) -> None:
    await asyncssh.listen(
        address,
        port,
        server_host_keys=[str(folder / "host")],
        authorized_client_keys=str(folder / "user.pub"),
        process_factory=run,
        encoding=None,
    )
    (folder / "ready").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
