"""What the tests share: small real data, and TensorFlow without its chatter."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
