"""Floor 5: readers of containers that need more than a header: pickles, msgpack, HDF5, and the configuration beside a file."""
