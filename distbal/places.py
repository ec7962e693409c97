"""Where things are, unless somebody says otherwise: for the daemon, and for its keeper, which imports little."""

from __future__ import annotations

#: hosts.yaml
HOSTS_FILE = "/etc/distbal/hosts.yaml"
