"""The keeper: a small process that outlives the daemon, so that a daemon's end ends nothing else.

It starts the daemon, holds duplicates of its descriptors, and gives them to the daemon that it starts when that one is gone.
What they are, the daemon writes into memory that the keeper holds too (a memfd) and never looks into; so nothing here knows
leases, hosts or Twisted, and little can go wrong.

- :mod:`distbal.keeper.holding`: what is held.
- :mod:`distbal.keeper.channel`: packets with descriptors, to the daemon and from it, as :mod:`distbal.keeperwire` has them.
- :mod:`distbal.keeper.child`: starting the daemon, saying how it ended, pauses, and when its silence is too long.
- :mod:`distbal.keeper.systemd`: what systemd is told, and what it keeps while the whole unit restarts.
- :mod:`distbal.keeper.replacing`: new code of the keeper itself, by exec.
- :mod:`distbal.keeper.loop`: what happens, and what then is done.
- :mod:`distbal.keeper.command`: ``distbal supervise``.
"""
