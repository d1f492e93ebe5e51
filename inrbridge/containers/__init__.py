"""Floor 5: one reader for each container: safetensors, zip archives, arrays of numpy, pickles, torch, MessagePack, HDF5, and the
configuration beside a file. They list what is there, follow what they must, run nothing, and take no memory on mere claims."""
