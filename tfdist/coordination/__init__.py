"""Parameter-server jobs: tasks that serve, functions that run on workers, what they report, and data for them.

Glossary:
    execution: `steps_per_execution` steps in one remote call.
    in flight: handed to the coordinator, its report not yet taken.
    report: what a worker sends back of an execution, one vector: counts, logs, and what its data adds to the metrics.

The way of one batch, fed by the chief:

    Keras' fit -> feed (feeding.py) -> executions in flight (flights.py) -> a worker: Keras' train step on variables
    of the ps, metrics in variables of its own (metrics.py) -> report (reports.py) -> the chief adds it to the metrics
    (strategies/parameter_server_steps.py) -> logs of that batch
"""
