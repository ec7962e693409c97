"""The soak: real jobs by all ways in, for minutes, while chance does to servers, clients and the daemon whatever may happen.

``make soak MINUTES=5``, or ``python -m tests.soak``. Afterwards each job has been compiled as a local compile would have done
it, nothing is lent, nobody waits, and descriptors, pipes and memory are as at the start; or it says what is not so, and ends
with 1.
"""
