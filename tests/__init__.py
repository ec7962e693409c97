"""The tests: test_<module>.py beside their helpers; integration/ holds those with real sockets and real programs."""
