"""Quantization: fake-quantize modules, BatchNorm folding, and the callback that trains with both."""
