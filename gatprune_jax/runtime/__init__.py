"""What computes: devices, cores, processes, and how work is compiled for and dealt out to them."""
