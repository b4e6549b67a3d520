"""A Trainer with several workers on Kubeflow: a TrainJob of Kubeflow Trainer v2.

The Trainer's step makes it, waits for it and hands over what it made (`execution`); in each of its
pods `worker` makes TF_CONFIG and takes part in the training. Checked against Trainer's published
models and with real workers on one machine; not run on a cluster.
"""
