"""A model cut into stages, one a device: which layer is where, what runs when, and how a stage is differentiated.

Glossary:
    stage: layers that follow each other, and the device that holds their variables and computes them.
    unit: the forward or the backward pass of one stage on one micro-batch.
    schedule: the order in which a stage does its units.
    in flight: micro-batches that a stage has done forwards and not yet backwards, so that it holds their activations.
"""
