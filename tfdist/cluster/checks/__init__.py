"""What `tfdist doctor` looks at: one kind of check a file, each gives findings.

None imports TensorFlow: a child process does, so that a crash or a hang of it is a finding and not
the end of the doctor.
"""
