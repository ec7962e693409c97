"""What the web port serves, read-only: the page, JSON for programs, metrics, and whether all is well."""
