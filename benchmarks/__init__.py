"""Speed and likelihood against public libraries: `make bench`, or `python -m benchmarks NAME...`."""
