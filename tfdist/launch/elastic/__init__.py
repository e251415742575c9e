"""Jobs whose machines come and go: `tfdist launch --min_workers=1 --max_workers=4 --host_discovery=./hosts.sh`.

Words: a *host* is a machine on the list that a script or a file gives; it has *slots*, each for one worker. The
*members* of an attempt are the slots that its workers have. A *change* is another set of members.

Order of events (driver.py)
    1. The list is read (discovery.py, hosts.py), again and again for as long as the job lasts.
    2. Members are chosen: as many slots as there are, up to max_workers (members.py). With fewer than min_workers the
       job waits.
    3. Workers are started, here or by a remote shell (workers.py, remote.py, remote_task.py), and watched by the
       supervisor (tfdist.launch.supervisor).
    4. The attempt ends, and so on from 2:

    | what happened                         | what the driver does                                          |
    |---------------------------------------|---------------------------------------------------------------|
    | all workers ended with 0              | the job is done                                               |
    | a host of a member is gone            | SIGTERM to all: they save, and end; the next attempt          |
    | slots are free for more workers       | the same, when they have been free for settle_seconds         |
    | a worker failed                       | as in any job, tfdist.launch.attempts; restarts are not       |
    |                                       | limited unless max_restarts is given                          |
    | a worker failed, and its host is gone | as for a host that is gone                                    |
    | a host's workers failed host_failures | it gets no workers for a while, twice as long each time       |
    | times in a row                        |                                                               |
    | fewer slots than min_workers          | waits; after elastic_timeout_seconds the job has failed       |
    | more changes than reset_limit         | the job has failed                                            |
    | the list can't be read                | says so, and goes on with the one before; at the start, an    |
    |                                       | error                                                         |
    | Ctrl-C, SIGTERM, SIGHUP               | as in any job                                                 |
    | the driver is killed (SIGKILL)        | the lifeline kills the tasks here and the remote shells;      |
    |                                       | remote tasks end when their shell does                        |
"""
