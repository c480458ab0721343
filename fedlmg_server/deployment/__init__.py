"""`fedlmg server`: a SuperLink with TLS and registered keys, set up and kept running."""
