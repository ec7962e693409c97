"""What asks the hosts how they are: one file a kind, and ``rounds.py``, which says when to ask and what an answer means."""
