"""Devices, CPU cores and processes, and how work is compiled for them and shared out to them."""
