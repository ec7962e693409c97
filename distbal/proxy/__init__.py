"""The proxy: a client that connects is lent a host and spliced to it. It knows no protocol but TCP's own."""
