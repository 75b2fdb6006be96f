"""Measures the bars that HyprBox sets itself. Run by `script/bench`; `bench/README.md` tells how to add one."""
