"""The training core: transformed examples and a JSON feature spec in, weights out.

It imports TensorFlow, Keras and the standard library only, so that it also runs in images that
cannot hold TFX. Keep it so: `make lint` checks.
"""
