"""Runs the contenders of a benchmark in turns, and writes down what they took. Plain Python.

Words: a *contender* is one way to do something, such as torch's DDP. A *case* is a contender in a setting, such as two
workers. A *job* is the processes that do it, each pinned to its cores; cases of the same job share them. In a *round*
every case is measured once, so that what else the machine does falls on all alike, and ratios are taken within a round.

    suite/NAME.py       the cases, and what follows from what they took
    rounds.py           asks the jobs in turns, notes what failed
    jobs.py, control.py starts the processes of a job, asks them over a socket
    task.py             the other end of the socket, for any Python
    samples.py, statistics.py, report.py, plot.py, documents.py    numbers, tables, JSON, pictures, docs/benchmarks.md
"""
